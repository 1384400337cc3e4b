"""The first step of a basic pruner: gather what the scores are computed from.

Data, metrics and masks share one shape, `{module name: tensor}` here and
`{module name: {tensor name: tensor}}` for masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from prune_core.errors import ConfigError, PruneError
from prune_core.masking import PrunerModuleWrapper, output_axis
from prune_core.masking.recurrent import is_recurrent, rows
from prune_core.masking.sharded import is_sharded, whole
from prune_core.masking.watcher import Watcher
from prune_toolkit.calibrated import CalibratedCollector
from prune_toolkit.calibration.calibrate import Calibrate
from prune_toolkit.calibration.precision import counting_type, wide
from prune_toolkit.data import DataCollector

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = [
    "ActivationCollector",
    "ActivationGradientCollector",
    "CalibratedCollector",
    "DataCollector",
    "GradientCollector",
    "WeightDataCollector",
    "channels_first",
    "check_channels",
]


def check_channels(wrapper: PrunerModuleWrapper) -> None:
    """Refuse a module whose output channels are not slices of its weight.

    Args:
        wrapper: The wrapped module.
    """
    if output_axis(wrapper.module) and getattr(wrapper.module, "groups", 1) > 1:
        raise ConfigError(
            f"{wrapper.name!r} is a transposed convolution with {wrapper.module.groups} groups; "
            "its output channels are not slices of its weight, so whole channels cannot be "
            "masked. Exclude it."
        )


def channels_first(wrapper: PrunerModuleWrapper, weight: Tensor) -> Tensor:
    """View a weight with its output channels along axis 0, as it is for most modules already.

    What comes of a recurrent layer has a row for each hidden unit already.

    Args:
        wrapper: The wrapped module.
        weight: Its weight, or something of its shape.
    """
    check_channels(wrapper)
    axis = output_axis(wrapper.module)
    return weight.transpose(0, axis) if axis else weight


class WeightDataCollector(DataCollector):
    """Gathers the weights, as the masks in force leave them.

    Args:
        compressor: The pruner.
        channels: Whether to put output channels along axis 0, for scores per channel.
    """

    def __init__(self, compressor: Pruner, channels: bool = False) -> None:
        super().__init__(compressor)
        self.channels = channels

    def collect(self) -> dict[str, Tensor]:
        """Return views of the weights, no copies."""
        data = {}
        for name, wrapper in self.compressor.get_modules_wrapper().items():
            weights = {
                tensor: whole(wrapper.parameter(tensor).detach())
                for tensor in scored_names(wrapper)
            }
            if any(weight.is_meta for weight in weights.values()):
                raise PruneError(
                    f"{name}.{wrapper.target} is on the meta device and has no values to score. "
                    "Load the weights first; masks made elsewhere can be applied to a meta model "
                    "with load_masks()."
                )
            weight = joined(wrapper, weights)
            data[name] = channels_first(wrapper, weight) if self.channels else weight
        return data


def scored_names(wrapper: PrunerModuleWrapper) -> tuple[str, ...]:
    """Return the tensors that a module's scores are computed from."""
    if not is_recurrent(wrapper.module):
        return (wrapper.target,)
    return tuple(name for name in wrapper.masked_names if name.startswith("weight"))


def joined(wrapper: PrunerModuleWrapper, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return what scores are computed from as one tensor: the only one, or rows of several."""
    if is_recurrent(wrapper.module):
        return rows(wrapper.module, tensors)
    return tensors[wrapper.target]


class ActivationCollector(CalibratedCollector):
    """Gathers a statistic of each output channel, averaged over everything that passes.

    Args:
        compressor: The pruner.
        calibrate: Runs the model on some batches.
        batches: Stop after this many, or None.
        statistic: Function of the activations that keeps their shape, such as `torch.relu`.
    """

    def __init__(
        self,
        compressor: Pruner,
        calibrate: Calibrate,
        batches: int | None = None,
        statistic: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__(compressor, calibrate, batches)
        self.statistic = statistic

    def hook(self, wrapper: PrunerModuleWrapper) -> list[RemovableHandle]:
        """Look at the outputs of the wrapped module.

        Args:
            wrapper: The wrapped module.
        """

        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            # An evaluation between two steps of a training is not what the training sees.
            if self.follows and not self.compressor.bound_model.training:
                return
            values = self.statistic(_first_output(output).detach())
            self.add(wrapper.name, _sums_and_counts(wrapper, values))

        return [wrapper.module.register_forward_hook(Watcher(look, wrapper.module))]

    def finish(self, name: str, total: Tensor) -> Tensor:
        """Divide the sums by the number of values.

        Args:
            name: The module.
            total: The sum over all batches.
        """
        return total[0] / total[1]


class ActivationGradientCollector(CalibratedCollector):
    """Gathers a function of the activations and of the loss's gradient with respect to them.

    It is averaged, for each output channel, over everything that passes.

    Args:
        compressor: The pruner.
        calibrate: Runs the model and calls `backward()` on some batches.
        batches: Stop after this many, or None.
        statistic: Function of `(activation, gradient)`, elementwise; their product, a first-order
            estimate of what the loss would lose, unless given.
    """

    why, hint = "no gradient reached its output", "; does calibrate(model) call backward()?"

    def __init__(
        self,
        compressor: Pruner,
        calibrate: Calibrate,
        batches: int | None = None,
        statistic: Callable[[Tensor, Tensor], Tensor] = torch.mul,
    ) -> None:
        super().__init__(compressor, calibrate, batches)
        self.statistic = statistic

    def hook(self, wrapper: PrunerModuleWrapper) -> list[RemovableHandle]:
        """Look at the gradient of each output when it arrives."""

        def look(module: nn.Module, inputs: Any, outputs: Any) -> None:
            output = _first_output(outputs)
            activation = output.detach()

            def arrive(gradient: Tensor) -> None:
                values = self.statistic(wide(activation), wide(gradient.detach()))
                self.add(wrapper.name, _sums_and_counts(wrapper, values))

            if output.requires_grad:
                output.register_hook(arrive)  # type: ignore[no-untyped-call]

        return [wrapper.module.register_forward_hook(Watcher(look, wrapper.module))]

    def finish(self, name: str, total: Tensor) -> Tensor:
        """Divide the sums by the number of values."""
        return total[0] / total[1]


def _first_output(output: Any) -> Tensor:
    """What a module puts out; of a recurrent layer the states of its last layer, step by step."""
    if isinstance(output, PackedSequence):
        return output.data
    return _first_output(output[0]) if isinstance(output, tuple) else output


def _sums_and_counts(wrapper: PrunerModuleWrapper, values: Tensor) -> Tensor:
    """For each output channel the sum of its values, and below it how many there are."""
    if is_recurrent(wrapper.module):
        if getattr(wrapper.module, "proj_size", 0):
            raise PruneError(
                f"{wrapper.name!r} projects its hidden units (proj_size), so that they cannot be "
                "scored by its outputs; choose an algorithm that looks at weights."
            )
        # Both directions, one behind the other.
        values = values.reshape(*values.shape[:-1], -1, int(wrapper.module.hidden_size))
    # A convolution's channels come after the batch, if there is one; a linear's come last.
    kernel = getattr(wrapper.module, "kernel_size", None)
    from_end = -1 if not isinstance(kernel, tuple) else -1 - len(kernel)
    # An input without a batch may leave nothing but the channels, and no axis to sum over.
    channels = values.unsqueeze(0).movedim(from_end, 0)
    over = list(range(1, channels.ndim))
    sums = channels.sum(dim=over, dtype=counting_type(channels.device))
    return torch.stack([sums, torch.full_like(sums, channels[0].numel())])


class GradientCollector(CalibratedCollector):
    """Gathers a function of weight and gradient, summed over the backward passes.

    Args:
        compressor: The pruner.
        calibrate: Runs the model and calls `backward()` on some batches.
        batches: Stop after this many, or None.
        statistic: Function of `(weight, gradient)`, elementwise.
        channels: Whether to put output channels along axis 0.
        straight_through: Whether a masked weight gets the gradient that it would have if it were
            not masked, so that it can earn its way back. Otherwise it gets zeros.
    """

    why, hint = "no gradient reached its weight", "; does calibrate(model) call backward()?"

    def __init__(
        self,
        compressor: Pruner,
        calibrate: Calibrate,
        batches: int | None = None,
        statistic: Callable[[Tensor, Tensor], Tensor] = torch.mul,
        channels: bool = False,
        straight_through: bool = False,
    ) -> None:
        super().__init__(compressor, calibrate, batches)
        self.statistic, self.channels = statistic, channels
        self.straight_through = straight_through

    def hook(self, wrapper: PrunerModuleWrapper) -> list[RemovableHandle]:
        """Look at each gradient as it arrives; those that the user accumulates are not touched."""
        names = scored_names(wrapper)
        for name in names:
            _check_gradient(wrapper, name)
        arrived: dict[str, Tensor] = {}

        def look_at(name: str) -> Callable[[Tensor], None]:
            def look(gradient: Tensor) -> None:
                arrived[name] = gradient.detach()
                if len(arrived) == len(names):
                    gradients = {each: arrived.pop(each) for each in names}
                    weights = {each: wrapper.parameter(each).detach() for each in names}
                    value = self.contribution(
                        wrapper, joined(wrapper, weights), joined(wrapper, gradients)
                    )
                    self.add(wrapper.name, value)

            return look

        if self.straight_through:
            return [wrapper.watch_gradient(name, look_at(name)) for name in names]
        return [
            wrapper.parameter(name).register_hook(look_at(name))  # type: ignore[no-untyped-call]
            for name in names
        ]

    def contribution(
        self, wrapper: PrunerModuleWrapper, weight: Tensor, gradient: Tensor
    ) -> Tensor:
        """Return what one backward pass adds to the data of a module.

        Args:
            wrapper: The wrapped module.
            weight: Its weight.
            gradient: The gradient of the weight.
        """
        value = self.statistic(wide(weight), wide(gradient))
        return channels_first(wrapper, value) if self.channels else value


def _check_gradient(wrapper: PrunerModuleWrapper, name: str) -> None:
    weight = wrapper.parameter(name)
    if is_sharded(weight):
        raise PruneError(
            f"{wrapper.name}.{name} is cut over several processes, where gradients come in parts "
            "and cannot be watched. Make the masks before fully_shard(), or choose an algorithm "
            "that looks at weights."
        )
    if not weight.requires_grad:
        raise PruneError(
            f"{wrapper.name}.{name} is frozen (requires_grad=False), and this algorithm scores by "
            "gradients. Unfreeze it, or exclude the module."
        )

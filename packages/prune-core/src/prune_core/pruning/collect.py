"""The first step of a basic pruner: gather what the scores are computed from.

Data, metrics and masks share one shape, `{module name: tensor}` here and
`{module name: {tensor name: tensor}}` for masks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prune_core.calibration.precision import counting_type, wide
from prune_core.calibration.processes import over_processes, total_count
from prune_core.calibration.replay import Calibrate, Enough
from prune_core.calibration.watch import padding_of
from prune_core.errors import ConfigError, PruneError
from prune_core.masking import PrunerModuleWrapper, output_axis
from prune_core.masking.sharded import is_sharded, whole

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


class DataCollector(ABC):
    """Gathers one tensor for each wrapped module.

    Args:
        compressor: The pruner; its `get_modules_wrapper()` gives the modules.
    """

    def __init__(self, compressor: Pruner) -> None:
        self.compressor = compressor

    def reset(self) -> None:  # noqa: B027 - most collectors have nothing to forget
        """Forget what was gathered, before the next `collect()`."""

    @abstractmethod
    def collect(self) -> dict[str, Tensor]:
        """Return `{module name: tensor}`."""


def check_channels(wrapper: PrunerModuleWrapper) -> None:
    """Refuse a module whose output channels are not slices of its weight."""
    if output_axis(wrapper.module) and getattr(wrapper.module, "groups", 1) > 1:
        raise ConfigError(
            f"{wrapper.name!r} is a transposed convolution with {wrapper.module.groups} groups; "
            "its output channels are not slices of its weight, so whole channels cannot be "
            "masked. Exclude it."
        )


def channels_first(wrapper: PrunerModuleWrapper, weight: Tensor) -> Tensor:
    """View a weight with its output channels along axis 0, as it is for most modules already."""
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
            weight = whole(wrapper.parameter(wrapper.target).detach())
            if weight.is_meta:
                raise PruneError(
                    f"{name}.{wrapper.target} is on the meta device and has no values to score. "
                    "Load the weights first; masks made elsewhere can be applied to a meta model "
                    "with load_masks()."
                )
            data[name] = channels_first(wrapper, weight) if self.channels else weight
        return data


class CalibratedCollector(DataCollector):
    """Gathers statistics while the user's own code runs the model.

    Args:
        compressor: The pruner.
        calibrate: Called with the model; runs it on some batches, with backward passes where
            gradients are gathered.
        batches: Stop after this many calls of the model, or None for as many as it makes.
    """

    def __init__(
        self, compressor: Pruner, calibrate: Calibrate, batches: int | None = None
    ) -> None:
        super().__init__(compressor)
        if not callable(calibrate):
            raise ConfigError(
                f"calibrate is {calibrate!r}; it must be a function that takes the model and runs "
                "it on some batches."
            )
        if batches is not None and (not isinstance(batches, int) or batches < 1):
            raise ConfigError(f"batches is {batches!r}; it must be a whole number of at least 1.")
        self.calibrate, self.batches = calibrate, batches
        self.seen = 0
        self._sums: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def reset(self) -> None:
        """Forget the statistics of an earlier calibration."""
        self.seen, self._sums = 0, {}

    @abstractmethod
    def hook(self, wrapper: PrunerModuleWrapper) -> list[RemovableHandle]:
        """Attach what calls `add()` whenever the module has been used."""

    def begin(self, tokens: Tensor | None) -> None:
        """Hear that a batch begins, and which of its tokens are no padding, if that is known."""

    def add(self, name: str, value: Tensor) -> None:
        """Add to the running sum of a module."""
        self._sums[name] = value if name not in self._sums else self._sums[name] + value

    def finish(self, name: str, total: Tensor) -> Tensor:
        """Turn the sum over all batches, and over all processes, into the data of a module."""
        return total

    def watch(self) -> None:
        """Gather from every run of the model from now on, until `stop()`."""
        self.reset()
        model = self.compressor.bound_model
        self._handles = [model.register_forward_pre_hook(self._count, with_kwargs=True)]
        try:
            for wrapper in self.compressor.get_modules_wrapper().values():
                self._handles += self.hook(wrapper)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Gather no longer; what has been gathered stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def gathered(self) -> dict[str, Tensor]:
        """Return the data of all batches so far, those of other processes included."""
        wrappers = self.compressor.get_modules_wrapper()
        devices = {name: w.parameter(w.target).device for name, w in wrappers.items()}
        seen, sums = total_count(self.seen), over_processes(self._sums, devices)
        if not seen:
            raise PruneError("calibrate(model) never ran the model, so there is nothing to score.")
        missing = [name for name in wrappers if name not in sums]
        if missing:
            raise PruneError(f"calibrate(model) gathered nothing for {missing[0]!r}: {self.why}.")
        return {name: self.finish(name, sums[name]) for name in wrappers}

    def collect(self) -> dict[str, Tensor]:
        """Run the calibration and return what was gathered."""
        self.watch()
        try:
            self.calibrate(self.compressor.bound_model)
        except Enough:
            pass
        finally:
            self.stop()
        return self.gathered()

    why = "the module was not used"

    def _count(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> None:
        if kwargs is None:
            return  # torch calls a hook once more, and in this way, if one before it removes it
        if self.batches is not None and self.seen >= self.batches:
            raise Enough
        self.seen += 1
        self.begin(getattr(self.compressor, "tokens", padding_of)(args, kwargs))


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
        """Look at the outputs of the wrapped module."""

        def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
            values = self.statistic(output.detach())
            self.add(wrapper.name, _sums_and_counts(wrapper, values))

        return [wrapper.module.register_forward_hook(look)]

    def finish(self, name: str, total: Tensor) -> Tensor:
        """Divide the sums by the number of values."""
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

    why = "no gradient reached its output; does calibrate(model) call backward()?"

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

        def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
            activation = output.detach()

            def arrive(gradient: Tensor) -> None:
                values = self.statistic(wide(activation), wide(gradient.detach()))
                self.add(wrapper.name, _sums_and_counts(wrapper, values))

            if output.requires_grad:
                output.register_hook(arrive)  # type: ignore[no-untyped-call]

        return [wrapper.module.register_forward_hook(look)]

    def finish(self, name: str, total: Tensor) -> Tensor:
        """Divide the sums by the number of values."""
        return total[0] / total[1]


def _sums_and_counts(wrapper: PrunerModuleWrapper, values: Tensor) -> Tensor:
    """For each output channel the sum of its values, and below it how many there are."""
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
    """

    why = "no gradient reached its weight; does calibrate(model) call backward()?"

    def __init__(
        self,
        compressor: Pruner,
        calibrate: Calibrate,
        batches: int | None = None,
        statistic: Callable[[Tensor, Tensor], Tensor] = torch.mul,
        channels: bool = False,
    ) -> None:
        super().__init__(compressor, calibrate, batches)
        self.statistic, self.channels = statistic, channels

    def hook(self, wrapper: PrunerModuleWrapper) -> list[RemovableHandle]:
        """Look at each gradient as it arrives; those that the user accumulates are not touched."""
        weight = wrapper.parameter(wrapper.target)
        if is_sharded(weight):
            raise PruneError(
                f"{wrapper.name}.{wrapper.target} is cut over several processes, where gradients "
                "come in parts and cannot be watched. Make the masks before fully_shard(), or "
                "choose an algorithm that looks at weights."
            )
        if not weight.requires_grad:
            raise PruneError(
                f"{wrapper.name}.{wrapper.target} is frozen (requires_grad=False), and this "
                "algorithm scores by gradients. Unfreeze it, or exclude the module."
            )

        def look(gradient: Tensor) -> None:
            self.add(wrapper.name, self.contribution(wrapper, weight.detach(), gradient.detach()))

        return [weight.register_hook(look)]  # type: ignore[no-untyped-call]

    def contribution(
        self, wrapper: PrunerModuleWrapper, weight: Tensor, gradient: Tensor
    ) -> Tensor:
        """Return what one backward pass adds to the data of a module."""
        value = self.statistic(wide(weight), wide(gradient))
        return channels_first(wrapper, value) if self.channels else value

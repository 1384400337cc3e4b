"""Single weights by what their removal does to the flow of gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from prune_core import ConfigError, PruneError
from prune_core.callables import UserFunction
from prune_core.progress import track
from prune_toolkit import DataCollector, MetricsCalculator, StraightMetricsCalculator
from prune_toolkit.basic import MoreOptions
from prune_toolkit.oneshot import ConfigList, OneShotPruner
from prune_toolkit.running.restore import left_as_it_was

__all__ = ["GraSPPruner", "GradientFlowCollector"]

Losses = Callable[[nn.Module], Tensor | Iterable[Tensor]]


class GradientFlowCollector(DataCollector):
    """Gathers `w · (H g)`, with the gradient g and the Hessian H of a loss over all batches.

    Args:
        compressor: The pruner.
        losses: Returns the loss of a model on a batch, or yields that of one batch after another.
    """

    def __init__(self, compressor: Any, losses: Losses) -> None:
        super().__init__(compressor)
        UserFunction(losses, "calibrate")  # which says what is wrong with it
        self.losses = losses

    def collect(self) -> dict[str, Tensor]:
        """Go over the batches twice, first for the gradient, then for its product with H."""
        weights = {
            name: wrapper.parameter(wrapper.target)
            for name, wrapper in self.compressor.get_modules_wrapper().items()
        }
        for name, weight in weights.items():
            if not weight.requires_grad:
                raise PruneError(
                    f"{name}.weight is frozen (requires_grad=False), and this algorithm scores by "
                    "gradients. Unfreeze it, or exclude the module."
                )
        with left_as_it_was(self.compressor.bound_model), torch.enable_grad():
            flow = self._summed(weights, lambda loss: loss)
            product = self._summed(weights, lambda loss: _along(loss, weights, flow))
        return {name: weight.detach() * product[name] for name, weight in weights.items()}

    def _summed(
        self, weights: dict[str, Tensor], wanted: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Return the gradient of something wanted of the losses, over all batches and processes."""
        totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        seen = 0
        for loss in track(self._batches(), "GraSPPruner, calibration", unit="batch"):
            gradients = torch.autograd.grad(wanted(loss), list(weights.values()), allow_unused=True)
            for (name, total), gradient in zip(totals.items(), gradients, strict=True):
                if gradient is not None:
                    totals[name] = total + gradient
            seen += 1
        if not seen:
            raise PruneError("calibrate(model) yielded no loss, so there is nothing to score.")
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for total in totals.values():
                torch.distributed.all_reduce(total)
        return totals

    def _batches(self) -> Iterator[Tensor]:
        losses = self.losses(self.compressor.bound_model)
        if not isinstance(losses, Tensor | Iterable):
            raise ConfigError(
                f"calibrate(model) returned {losses!r}; it must return the loss, or yield one for "
                "each batch, and leave backward() to the pruner, which needs second derivatives."
            )
        yield from [losses] if isinstance(losses, Tensor) else losses


def _along(loss: Tensor, weights: dict[str, Tensor], flow: dict[str, Tensor]) -> Tensor:
    """Return gᵀ · stop(g), whose gradient is H g."""
    gradients = torch.autograd.grad(
        loss, list(weights.values()), create_graph=True, allow_unused=True
    )
    return sum(
        (
            (g * flow[name]).sum()
            for name, g in zip(weights, gradients, strict=True)
            if g is not None
        ),
        start=loss.new_zeros(()),
    )


class GraSPPruner(OneShotPruner):
    """Prunes the single weights without which gradients flow best.

    `score = w · (H g)`, the change of `‖g‖²` that comes with a weight, where g is the gradient of
    the loss and H its Hessian. (The paper writes −w · (H g), and prunes the largest.) Meant for a
    model that has just been initialised.

    Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow,
    https://arxiv.org/abs/2002.07376

    Args:
        model: The model, wrapped in place; not one inside DistributedDataParallel, which has no
            second derivatives.
        config_list: The rules.
        calibrate: Takes the model and returns its loss, or yields one loss for each batch. It
            does not call `backward()`, is called twice, and must give the same batches each time.
            The model is put back afterwards.
        mode: `"global"` ranks the weights of all modules of an entry together, `"normal"` those
            of each module.
        **options: `reconstruct=` and what else `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import GraSPPruner
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> batch = torch.randn(16, 4)
        >>> pruner = GraSPPruner(
        ...     model,
        ...     [{"total_sparsity": 0.75, "op_types": ["Linear"]}],
        ...     calibrate=lambda model: model(batch).square().mean(),
        ... )
        >>> model, masks = pruner.compress()
        >>> sum(int(mask["weight"].sum()) for mask in masks.values())
        12
    """

    modes: ClassVar[tuple[str, ...]] = ("global", "normal")
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        calibrate: Losses,
        mode: str = "global",
        **options: Unpack[MoreOptions],
    ) -> None:
        self.calibrate = calibrate
        super().__init__(model, config_list, mode, **options)

    def collector(self) -> DataCollector:
        """Multiply weights with the product of Hessian and gradient."""
        return GradientFlowCollector(self, self.calibrate)

    def calculator(self) -> MetricsCalculator:
        """Take the products for the scores."""
        return StraightMetricsCalculator(copy=False)

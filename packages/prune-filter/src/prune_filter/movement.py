"""Single weights by where training moves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from prune_core.tools import (
    DataCollector,
    GradientCollector,
    MetricsCalculator,
    SparsityAllocator,
    StraightMetricsCalculator,
)
from prune_filter.base import ConfigList
from prune_filter.calibrated import CalibratedPruner
from prune_filter.calibration import Calibrate, calibration
from prune_filter.modes import allocator_for

__all__ = ["MovementPruner"]


class MovementPruner(CalibratedPruner):
    """Prunes the single weights that training moves towards zero.

    `score = −Σ w · g`, over all backward passes while `calibrate(model)` trains: positive for a
    weight that gradient descent drives away from zero. This pruner really trains: the model keeps
    what it has learnt.

    Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning,
    https://arxiv.org/abs/2005.07683

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        trainer: Called with model, optimizer and criterion; the older form of `calibrate`.
        traced_optimizer: The optimizer for the trainer.
        criterion: The loss function for the trainer.
        training_epochs: How often the trainer is called; once unless given.
        mode: `"normal"` ranks the weights of each module, `"global"` those of all modules of an
            entry together.
        calibrate: Takes the model and trains it, with an optimizer that has its parameters.
        batches: How many batches it trains for, or None for all.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import MovementPruner
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> def train(model):
        ...     optimizer = torch.optim.SGD(model.parameters(), 0.1)
        ...     for _ in range(5):
        ...         model(torch.randn(8, 4)).square().mean().backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        >>> rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
        >>> model, masks = MovementPruner(model, rules, calibrate=train).compress()
        >>> int(masks["0"]["weight"].sum())
        4
    """

    modes: ClassVar[tuple[str, ...]] = ("normal", "global")

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        trainer: Callable[..., Any] | None = None,
        traced_optimizer: Any = None,
        criterion: Callable[..., Any] | None = None,
        training_epochs: int | None = None,
        mode: str = "normal",
        *,
        calibrate: Calibrate | None = None,
        batches: int | None = None,
    ) -> None:
        given = calibration(
            self,
            calibrate,
            batches,
            trainer=trainer,
            traced_optimizer=traced_optimizer,
            criterion=criterion,
            training_epochs=training_epochs,
        )
        super().__init__(model, config_list, given, mode)

    def collector(self) -> DataCollector:
        """Sum over the backward passes."""
        return GradientCollector(self, self.calibrate, self.batches, _away_from_zero)

    def calculator(self) -> MetricsCalculator:
        """Take the sums for the scores."""
        return StraightMetricsCalculator(copy=False)

    def allocator(self) -> SparsityAllocator:
        """Let a weight come back if a later training moves it away from zero."""
        return allocator_for(self, self.mode, channels=False, continuous_mask=False)


def _away_from_zero(weight: Tensor, gradient: Tensor) -> Tensor:
    return -weight * gradient

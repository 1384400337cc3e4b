"""Output channels by how much the loss is expected to change without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from prune_core.compat import understands
from prune_core.evaluators import Evaluator
from prune_core.masking import PrunerModuleWrapper
from prune_filter.calibrated import CalibratedPruner
from prune_filter.calibration import Calibrate, calibration
from prune_filter.compat import STATISTICS
from prune_toolkit import (
    DataCollector,
    GradientCollector,
    MetricsCalculator,
    StraightMetricsCalculator,
)
from prune_toolkit.basic import MoreOptions
from prune_toolkit.oneshot import ChannelPruner, ConfigList

__all__ = [
    "GroupTaylorPruner",
    "TaylorCollector",
    "TaylorFOWeightFilterPruner",
    "TaylorFOWeightPruner",
]


class TaylorCollector(GradientCollector):
    """Sums a first-order Taylor term of each output channel over the backward passes.

    Args:
        compressor: The pruner.
        calibrate: Runs the model and calls `backward()` on some batches.
        batches: Stop after this many, or None.
        jointly: Whether the weights of a channel are summed before squaring, not after.
    """

    def __init__(
        self,
        compressor: Any,
        calibrate: Calibrate,
        batches: int | None = None,
        jointly: bool = False,
    ) -> None:
        super().__init__(compressor, calibrate, batches, torch.mul, channels=True)
        self.jointly = jointly

    def contribution(
        self, wrapper: PrunerModuleWrapper, weight: Tensor, gradient: Tensor
    ) -> Tensor:
        """Return one number for each channel; a weight's worth of them is never kept."""
        terms = super().contribution(wrapper, weight, gradient).flatten(1)
        return terms.sum(1).square() if self.jointly else terms.square().sum(1)


class TaylorFOWeightPruner(CalibratedPruner, ChannelPruner):
    """Prunes the output channels whose removal should change the loss least, to first order.

    `score[i] = Σ_batches Σ (g[i] · w[i])²`, over all weights w of output channel i and their
    gradients g.

    Molchanov et al., Importance Estimation for Neural Network Pruning,
    https://arxiv.org/abs/1906.10771

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        trainer: Called with model, optimizer and criterion; the older form of `calibrate`.
        traced_optimizer: The optimizer for the trainer.
        criterion: The loss function for the trainer.
        training_batches: The older name of `batches`.
        mode: `"normal"` ranks the channels of each module, `"global"` those of all modules of
            an entry together, `"dependency_aware"` those of modules that can only lose the same
            channels together.
        dummy_input: What the model is traced with in the mode `"dependency_aware"`.
        calibrate: Takes the model, runs it on some batches and calls `backward()` on each loss.
            The model is put back afterwards, so it may be in training mode, and even train.
        batches: How many batches count, or None for all.
        evaluator: Trains the model instead, for so many `training_steps`.
        training_steps: How many steps the evaluator trains for.
        **options: `reconstruct=` and what else `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import TaylorFOWeightPruner
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 2))
        >>> pruner = TaylorFOWeightPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_types": ["Conv2d"]}],
        ...     calibrate=lambda model: model(torch.randn(16, 3, 8, 8)).square().mean().backward(),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum())
        4
    """

    jointly: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    @understands(STATISTICS)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        trainer: Callable[..., Any] | None = None,
        traced_optimizer: Any = None,
        criterion: Callable[..., Any] | None = None,
        training_batches: int | None = None,
        mode: str = "normal",
        dummy_input: Any = None,
        *,
        calibrate: Calibrate | None = None,
        batches: int | None = None,
        evaluator: Evaluator | None = None,
        training_steps: int | None = None,
        **options: Unpack[MoreOptions],
    ) -> None:
        given = calibration(
            self,
            calibrate,
            batches,
            trainer=trainer,
            traced_optimizer=traced_optimizer,
            criterion=criterion,
            training_batches=training_batches,
            evaluator=evaluator,
            training_steps=training_steps,
        )
        super().__init__(model, config_list, given.for_statistics(), mode, dummy_input, **options)

    def collector(self) -> DataCollector:
        """Sum the terms of each channel over the backward passes."""
        return TaylorCollector(self, self.calibrate, self.batches, self.jointly)

    def calculator(self) -> MetricsCalculator:
        """Take the sums for the scores."""
        return StraightMetricsCalculator()


class GroupTaylorPruner(TaylorFOWeightPruner):
    """Prunes the output channels whose weights together should change the loss least.

    `score[i] = Σ_batches (Σ g[i] · w[i])²`: the terms of one channel are added up before they are
    squared, so that those which cancel each other count for nothing. Arguments and modes are those
    of `TaylorFOWeightPruner`.

    Molchanov et al., Importance Estimation for Neural Network Pruning,
    https://arxiv.org/abs/1906.10771
    """

    jointly = True


class TaylorFOWeightFilterPruner(TaylorFOWeightPruner):
    """`TaylorFOWeightPruner` as the first releases had it: it watches the training to come.

    Without `calibrate` or a trainer, the next batch after `compress()` is what it scores by.
    """

    watched_batches = 1

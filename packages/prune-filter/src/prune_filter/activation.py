"""Output channels by what they send on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core import ConfigError
from prune_core.compat import understands
from prune_core.evaluators import Evaluator
from prune_filter.calibrated import CalibratedPruner
from prune_filter.calibration import Calibrate, calibration
from prune_filter.compat import ACTIVATION
from prune_toolkit import (
    ActivationCollector,
    DataCollector,
    MetricsCalculator,
    StraightMetricsCalculator,
)
from prune_toolkit.basic import MoreOptions
from prune_toolkit.oneshot import ChannelPruner, ConfigList

__all__ = [
    "ActivationAPoZRankFilterPruner",
    "ActivationAPoZRankPruner",
    "ActivationMeanRankFilterPruner",
    "ActivationMeanRankPruner",
    "ActivationPruner",
]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "relu6": F.relu6}


class ActivationPruner(CalibratedPruner, ChannelPruner):
    """Prunes the output channels whose activations have the smallest mean of some statistic."""

    @understands(ACTIVATION)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        trainer: Callable[..., Any] | None = None,
        traced_optimizer: Any = None,
        criterion: Callable[..., Any] | None = None,
        training_batches: int | None = None,
        activation: str = "relu",
        mode: str = "normal",
        dummy_input: Any = None,
        *,
        calibrate: Calibrate | None = None,
        batches: int | None = None,
        evaluator: Evaluator | None = None,
        training_steps: int | None = None,
        **options: Unpack[MoreOptions],
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"activation is {activation!r}; it must be one of "
                f"{', '.join(map(repr, ACTIVATIONS))}."
            )
        self.activation = ACTIVATIONS[activation]
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

    def statistic(self, outputs: Tensor) -> Tensor:
        """Return what is averaged, for each value that a module puts out."""
        raise NotImplementedError

    def collector(self) -> DataCollector:
        """Average over all batches."""
        return ActivationCollector(self, self.calibrate, self.batches, self.statistic)

    def calculator(self) -> MetricsCalculator:
        """Take the averages for the scores."""
        return StraightMetricsCalculator()


class ActivationAPoZRankPruner(ActivationPruner):
    """Prunes the output channels whose activations are zero most often.

    `score[i] = 1 − APoZ[i] = 1 − mean(act(out[i]) == 0)`, over all batches and positions.

    Hu et al., Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep
    Architectures, https://arxiv.org/abs/1607.03250

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        trainer: Called with model, optimizer and criterion; the older form of `calibrate`.
        traced_optimizer: The optimizer for the trainer.
        criterion: The loss function for the trainer.
        training_batches: The older name of `batches`.
        activation: `"relu"` or `"relu6"`, applied to the outputs of a module.
        mode: `"normal"` ranks the channels of each module, `"dependency_aware"` those of modules
            that can only lose the same channels together.
        dummy_input: What the model is traced with in the mode `"dependency_aware"`.
        calibrate: Takes the model and runs it on some batches. The model is put back
            afterwards, so it may be in training mode, and even train.
        batches: How many batches count, or None for all.
        evaluator: Trains the model instead, for so many `training_steps`.
        training_steps: How many steps the evaluator trains for.
        **options: `reconstruct=` and what else `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import ActivationAPoZRankPruner
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> pruner = ActivationAPoZRankPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_types": ["Conv2d"]}],
        ...     calibrate=lambda model: model(torch.randn(16, 3, 8, 8)),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum())
        4
    """

    def statistic(self, outputs: Tensor) -> Tensor:
        """Return whether a value is not zero.

        Args:
            outputs: What a module returned.
        """
        return self.activation(outputs) != 0


class ActivationMeanRankPruner(ActivationPruner):
    """Prunes the output channels whose activations have the smallest mean.

    `score[i] = mean(act(out[i]))`, over all batches and positions.

    Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference,
    section 2.2, https://arxiv.org/abs/1611.06440

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        trainer: Called with model, optimizer and criterion; the older form of `calibrate`.
        traced_optimizer: The optimizer for the trainer.
        criterion: The loss function for the trainer.
        training_batches: The older name of `batches`.
        activation: `"relu"` or `"relu6"`, applied to the outputs of a module.
        mode: `"normal"` ranks the channels of each module, `"dependency_aware"` those of modules
            that can only lose the same channels together.
        dummy_input: What the model is traced with in the mode `"dependency_aware"`.
        calibrate: Takes the model and runs it on some batches. The model is put back
            afterwards, so it may be in training mode, and even train.
        batches: How many batches count, or None for all.
        evaluator: Trains the model instead, for so many `training_steps`.
        training_steps: How many steps the evaluator trains for.
        **options: `reconstruct=` and what else `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import ActivationMeanRankPruner
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
        >>> pruner = ActivationMeanRankPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_types": ["Linear"]}],
        ...     calibrate=lambda model: model(torch.randn(16, 4)),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum())
        3
    """

    def statistic(self, outputs: Tensor) -> Tensor:
        """Return the activations.

        Args:
            outputs: What a module returned.
        """
        return self.activation(outputs)


class ActivationAPoZRankFilterPruner(ActivationAPoZRankPruner):
    """`ActivationAPoZRankPruner` as the first releases had it: it watches the training to come.

    Without `calibrate` or a trainer, the next batch after `compress()` is what it scores by.
    """

    watched_batches = 1


class ActivationMeanRankFilterPruner(ActivationMeanRankPruner):
    """`ActivationMeanRankPruner` as the first releases had it: it watches the training to come.

    Without `calibrate` or a trainer, the next batch after `compress()` is what it scores by.
    """

    watched_batches = 1

"""Channels by the scaling factor that batch norm gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, SupportsFloat, Unpack

import torch
from torch import Tensor, nn

from prune_core import ConfigError
from prune_core.compat import understands
from prune_core.evaluators import Evaluator
from prune_filter.calibration import Calibrate, calibration
from prune_filter.compat import SLIM
from prune_toolkit import (
    DataCollector,
    MetricsCalculator,
    SparsityAllocator,
    StraightMetricsCalculator,
    WeightDataCollector,
)
from prune_toolkit.basic import MoreOptions
from prune_toolkit.modes import allocator_for
from prune_toolkit.oneshot import ConfigList, OneShotPruner

__all__ = ["SlimPruner", "SparseScaleCollector"]

BATCH_NORMS = (*(f"BatchNorm{n}d" for n in (1, 2, 3)), "SyncBatchNorm")


class SparseScaleCollector(WeightDataCollector):
    """Trains scaling factors towards zero, and then gathers them.

    Args:
        compressor: The pruner.
        calibrate: Trains the model; None takes the factors as they are.
        scale: The weight of the penalty on their absolute values.
    """

    def __init__(self, compressor: Any, calibrate: Calibrate | None, scale: float) -> None:
        super().__init__(compressor)
        self.calibrate, self.scale = calibrate, scale

    def collect(self) -> dict[str, Tensor]:
        """Train with the penalty, and return the factors."""
        if self.calibrate is not None:
            with self._penalty():
                self.calibrate(self.compressor.bound_model)
        return super().collect()

    @contextmanager
    def _penalty(self) -> Iterator[None]:
        """Add the gradient of `scale · Σ |γ|` to that of each factor as it arrives."""
        factors = [
            wrapper.parameter(wrapper.target)
            for wrapper in self.compressor.get_modules_wrapper().values()
        ]

        def penalised(factor: Tensor) -> Callable[[Tensor], Tensor]:
            return lambda gradient: gradient + self.scale * factor.detach().sign()

        handles = [
            factor.register_hook(penalised(factor))  # type: ignore[no-untyped-call]
            for factor in factors
            if factor.requires_grad
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class SlimPruner(OneShotPruner):
    """Prunes the channels whose batch norm scales them least, after training that prefers zeros.

    While `calibrate(model)` trains, `scale · Σ |γ|` is added to the loss, by its gradient
    `scale · sign(γ)` in each backward pass; then `score = |γ|`.
    This pruner really trains: the model keeps what it has learnt. Without anything to train it
    with, the factors are ranked as they are.

    Liu et al., Learning Efficient Convolutional Networks through Network Slimming,
    https://arxiv.org/abs/1708.06519

    Args:
        model: The model, wrapped in place.
        config_list: The rules, for batch norm modules; the ratio is one over all of them
            (`total_sparsity`) unless the mode is `"normal"`.
        trainer: Called with model, optimizer and criterion; the older form of `calibrate`.
        traced_optimizer: The optimizer for the trainer.
        criterion: The loss function for the trainer, which gets it with the penalty added.
        training_epochs: How often the trainer is called; once unless given.
        scale: The weight of the penalty.
        mode: `"global"` ranks the channels of all modules of an entry together, `"normal"` those
            of each module.
        calibrate: Takes the model and trains it, with an optimizer that has its parameters.
        evaluator: Trains the model instead, for so many `training_epochs` or `training_steps`.
        training_steps: How many steps the evaluator trains for.
        **options: `reconstruct=` and what else `BasicPruner` takes.

    Example:
        >>> from torch import nn
        >>> from prune_filter import SlimPruner
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> _ = nn.init.uniform_(model[1].weight)
        >>> pruner = SlimPruner(model, [{"total_sparsity": 0.5, "op_types": ["BatchNorm2d"]}])
        >>> model, masks = pruner.compress()
        >>> int(masks["1"]["weight"].sum())
        4
    """

    default_types = BATCH_NORMS
    supported_types = BATCH_NORMS
    modes: ClassVar[tuple[str, ...]] = ("global", "normal")

    @understands(SLIM)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        trainer: Callable[..., Any] | None = None,
        traced_optimizer: Any = None,
        criterion: Callable[..., Any] | None = None,
        training_epochs: int | None = None,
        scale: float = 0.0001,
        mode: str = "global",
        *,
        calibrate: Calibrate | None = None,
        evaluator: Evaluator | None = None,
        training_steps: int | None = None,
        **options: Unpack[MoreOptions],
    ) -> None:
        if not (isinstance(scale, SupportsFloat) and 0 <= scale < float("inf")):
            raise ConfigError(f"scale is {scale!r}; the weight of a penalty is at least 0.")
        self.scale = scale
        # The oldest form says where the loss is made; otherwise the gradients get the penalty.
        self.in_the_loss = criterion is not None
        self.calibration = calibration(
            self,
            calibrate,
            trainer=trainer,
            traced_optimizer=traced_optimizer,
            criterion=None if criterion is None else self._penalised(criterion),
            training_epochs=training_epochs,
            evaluator=evaluator,
            training_steps=training_steps,
        )
        super().__init__(model, config_list, mode, **options)

    def _penalised(self, criterion: Callable[..., Any]) -> Callable[..., Any]:
        def with_penalty(*args: Any, **kwargs: Any) -> Any:
            sizes = [
                wrapper.parameter(wrapper.target).abs().sum()
                for wrapper in self.get_modules_wrapper().values()
            ]
            return criterion(*args, **kwargs) + self.scale * sum(sizes)

        return with_penalty

    def collector(self) -> DataCollector:
        """Train, and gather the factors."""
        return SparseScaleCollector(
            self, self.calibration.run, 0.0 if self.in_the_loss else self.scale
        )

    def calculator(self) -> MetricsCalculator:
        """Take the factors for the scores; their signs go when they are compared."""
        return StraightMetricsCalculator()

    def allocator(self) -> SparsityAllocator:
        """Rank absolute values."""
        return allocator_for(self, self.mode, channels=False, transform=torch.abs)

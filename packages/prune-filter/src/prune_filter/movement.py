"""Single weights by where training moves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Unpack

from torch import Tensor, nn

from prune_core import Compressed, ConfigError
from prune_core.compat import understands
from prune_core.curves import cubic
from prune_core.evaluators import Evaluator
from prune_core.masking import Masks
from prune_filter.calibrated import CalibratedPruner
from prune_filter.calibration import Calibrate, Calibration, calibration
from prune_filter.compat import MOVEMENT
from prune_toolkit import (
    DataCollector,
    GradientCollector,
    MetricsCalculator,
    SparsityAllocator,
    StraightMetricsCalculator,
)
from prune_toolkit.basic import MoreOptions
from prune_toolkit.modes import allocator_for
from prune_toolkit.oneshot import ConfigList

__all__ = ["MovementCollector", "MovementPruner"]


class MovementCollector(GradientCollector):
    """Sums `−w · g` over all backward passes of a training.

    The gradient g is that of the weight as the forward sees it, `∂L/∂(w·m)`: a weight that is
    masked has one too, by which its score goes on moving, and it can come back.

    Args:
        compressor: The pruner.
        calibrate: Trains the model.
        batches: Stop after this many calls of the model, or None.
    """

    # Movement is what has become of a weight since the training began.
    forgets: ClassVar[bool] = False

    def __init__(self, compressor: Any, calibrate: Calibrate, batches: int | None = None) -> None:
        super().__init__(compressor, calibrate, batches, _away_from_zero, straight_through=True)

    @property
    def trains(self) -> bool:
        """The calibration is a training."""
        return True


class MovementPruner(CalibratedPruner):
    """Prunes the single weights that training moves towards zero.

    `score = −Σ w · g`, over all backward passes while `calibrate(model)` trains: positive for a
    weight that gradient descent drives away from zero. The gradient g is that of the weight as the
    forward sees it, so that the score of a weight that is masked goes on moving (the paper's
    straight-through estimator). This pruner really trains: the model keeps what it has learnt.

    Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning,
    https://arxiv.org/abs/2005.07683

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        trainer: Called with model, optimizer and criterion; the older form of `calibrate`.
        traced_optimizer: The optimizer for the trainer.
        criterion: The loss function for the trainer.
        training_epochs: How often the trainer is called; once unless given.
        warm_up_step: The batch before which nothing is masked yet. With it and the next, the
            sparsity rises while the model trains, as the paper has it.
        cool_down_beginning_step: The batch from which the sparsity is the one asked for; in
            between it follows a cubic curve.
        mode: `"normal"` ranks the weights of each module, `"global"` those of all modules of an
            entry together.
        calibrate: Takes the model and trains it, with an optimizer that has its parameters.
        batches: How many batches it trains for, or None for all.
        evaluator: Trains the model instead, for so many `training_epochs` or `training_steps`.
        training_steps: How many steps the evaluator trains for.
        **options: `reconstruct=` and what else `BasicPruner` takes.

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
    needs_labels: ClassVar[bool] = True

    @understands(MOVEMENT)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        trainer: Callable[..., Any] | None = None,
        traced_optimizer: Any = None,
        criterion: Callable[..., Any] | None = None,
        training_epochs: int | None = None,
        warm_up_step: int | None = None,
        cool_down_beginning_step: int | None = None,
        mode: str = "normal",
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
            training_epochs=training_epochs,
            evaluator=evaluator,
            training_steps=training_steps,
        )
        self.ramp = _checked_ramp(given, warm_up_step, cool_down_beginning_step)
        super().__init__(model, config_list, given, mode, **options)

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Train, make masks, put them in force, and return the wrapped model and the masks.

        Args:
            example_inputs: An input of the model, with which masks are closed over what follows
                a masked channel.
        """
        with nullcontext() if self.ramp is None else self._rising(*self.ramp):
            return super().compress(example_inputs)

    @contextmanager
    def _rising(self, start: int, end: int) -> Iterator[None]:
        """Before each batch, mask what the curve asks for by the scores so far."""
        wrappers = self.get_modules_wrapper()
        asked = {name: wrapper.config["sparsity"] for name, wrapper in wrappers.items()}
        collector, calculator = self.data_collector, self.metrics_calculator
        allocator = self.sparsity_allocator
        assert isinstance(collector, GradientCollector)
        assert calculator is not None
        assert allocator is not None

        def mask(module: nn.Module, inputs: Any) -> None:
            # The collector has not counted this batch yet: these are complete.
            progress = min(1.0, (collector.seen - start) / (end - start))
            if progress <= 0:
                return
            for name, wrapper in wrappers.items():
                wrapper.config["sparsity"] = cubic(progress, 0.0, asked[name])
            scores = calculator.calculate_metrics(collector.gathered())
            self.load_masks(allocator.generate_sparsity(scores))

        # It comes before the hook with which the collector counts.
        handle = self.bound_model.register_forward_pre_hook(mask)
        try:
            yield
        finally:
            handle.remove()
            for name, wrapper in wrappers.items():
                wrapper.config["sparsity"] = asked[name]

    def collector(self) -> DataCollector:
        """Sum over the backward passes."""
        return MovementCollector(self, self.calibrate, self.batches)

    def calculator(self) -> MetricsCalculator:
        """Take the sums for the scores."""
        return StraightMetricsCalculator(copy=False)

    def allocator(self) -> SparsityAllocator:
        """Let a weight come back if a later training moves it away from zero."""
        return allocator_for(self, self.mode, channels=False, continuous_mask=False)


def _checked_ramp(given: Calibration, start: int | None, end: int | None) -> tuple[int, int] | None:
    if start is None and end is None:
        return None
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end):
        raise ConfigError(
            f"warm_up_step is {start!r} and cool_down_beginning_step {end!r}; both are counts of "
            "batches, and the first is less than the second."
        )
    if given.run is None:
        raise ConfigError(
            "warm_up_step needs calibrate=, a function that trains the model: the sparsity rises "
            "while it does."
        )
    return start, end


def _away_from_zero(weight: Tensor, gradient: Tensor) -> Tensor:
    return -weight * gradient

"""Sparsity that grows while `fit` runs, as a Keras callback."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import keras

from prune_core.curves import cubic
from prune_core.errors import ConfigError, warn
from prune_core.progress import note
from prune_core.registry import get_schedule
from prune_tf.arrays import array_of
from prune_tf.masks import hold_masks, renew_compiled_step
from prune_tf.own_loop import check_outside, number_of
from prune_tf.pruning.pruner import Pruner

__all__ = ["AGPSchedule", "PruningSchedule", "polynomial"]

Curve = Callable[[float, float, float], float]
UPDATES = 100
"""How often masks change on the way unless `frequency` says otherwise.

Each time costs a look at every weight, and under JAX a compilation of the step.
"""


class PruningSchedule(keras.callbacks.Callback):  # type: ignore[misc]
    """Prunes more and more between two steps of the optimizer.

    In `fit` it is a callback. In a training loop of your own, call `step()` after each step of the
    optimizer, and give the optimizer here or else the number of the step there.

    Progress is read from `optimizer.iterations`, not counted in calls, so it is right with
    `steps_per_execution`, gradient accumulation, several `fit` calls and a training that resumes
    from a checkpoint. A run of several steps at once is pruned after it.

    Callbacks that write weights, such as `EarlyStopping(restore_best_weights=True)`, come before
    it in the list, because it sets what it masked to zero again when training ends.

    Args:
        pruner: Makes the masks; its config says the final sparsity of each layer.
        end_step: The optimizer step at which the final sparsity is reached.
        start_step: The step at which pruning starts, with `initial_sparsity`.
        frequency: Steps between two prunings; by default a hundredth of the way.
        initial_sparsity: Sparsity at the start; a layer never starts above what it ends at.
        curve: How sparsity grows: a function of `(progress, initial, final)` or the name of a
            registered schedule, such as `"linear"`.
        optimizer: Whose steps are counted; by default that of the model that `fit` trains. A model
            that trains with several, as a GAN does, has to say which.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from prune_tf import LevelPruner, PruningSchedule
        >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> pruner = LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}])
        >>> history = model.fit(
        ...     np.ones((64, 4)),
        ...     np.ones((64, 2)),
        ...     batch_size=8,
        ...     verbose=0,
        ...     callbacks=[PruningSchedule(pruner, end_step=8, curve="linear")],
        ... )
        >>> list(pruner.sparsity().values())
        [0.5]
    """

    def __init__(
        self,
        pruner: Pruner,
        end_step: int,
        start_step: int = 0,
        frequency: int | None = None,
        initial_sparsity: float = 0.0,
        curve: Curve | str = cubic,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(pruner, Pruner):
            raise ConfigError(
                f"pruner is a {type(pruner).__module__}.{type(pruner).__name__}; it must be a "
                "pruner of this package, such as LevelPruner(model, config_list)."
            )
        steps: dict[str, Any] = {"end_step": end_step, "start_step": start_step}
        if frequency is not None:
            steps["frequency"] = frequency
        for name, value in steps.items():
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of steps.")
        if not 0 <= start_step < end_step:
            raise ConfigError(
                f"start_step is {start_step} and end_step is {end_step}; pruning must start at "
                "step 0 or later and end after it starts."
            )
        if frequency is None:
            frequency = max(1, (end_step - start_step) // UPDATES)
        if frequency < 1:
            raise ConfigError(f"frequency is {frequency}; it must be at least 1.")
        ratio: Any = initial_sparsity
        if not isinstance(ratio, Real) or not 0.0 <= initial_sparsity < 1.0:
            raise ConfigError(
                f"initial_sparsity is {initial_sparsity!r}; it must be a number of at least 0 and "
                "less than 1."
            )
        if not isinstance(curve, str) and not callable(curve):
            raise ConfigError(
                f"curve is {curve!r}; it must be the name of a schedule, such as 'linear', or a "
                "function of (progress, initial, final)."
            )
        if optimizer is not None and not hasattr(optimizer, "iterations"):
            raise ConfigError(
                f"optimizer is a {type(optimizer).__module__}.{type(optimizer).__name__}; it must "
                "be a Keras optimizer."
            )
        self.pruner = pruner
        self.start_step, self.end_step, self.frequency = start_step, end_step, frequency
        self.initial_sparsity = initial_sparsity
        self.curve: Curve = get_schedule(curve) if isinstance(curve, str) else curve
        self.optimizer = optimizer
        self._pruned_at = -1
        self._amounts: tuple[int, ...] | None = None

    def step(self, step: int | None = None) -> bool:
        """Prune if a step is due, in a training loop of your own.

        Args:
            step: How many steps there have been; what the optimizer says unless given.

        Returns:
            Whether masks were made anew, of the weights that the model has. Under `jax.jit` a step
            computes with the masks that it was compiled with, so that it has to be compiled again
            then, and weights that are kept outside of the model are taken from it again.
        """
        check_outside("step()")
        if step is None and self.optimizer is None:
            raise ConfigError(
                "A training loop of your own has to say how far it is: give the optimizer, "
                "PruningSchedule(..., optimizer=optimizer), or the number, schedule.step(number)."
            )
        now = self.iterations if step is None else number_of("step", step)
        return self._prune_if_due(now)

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that it is the pruner's model that is trained, and prune if a step is due."""
        if self.pruner.bound_model not in [*self.model._flatten_layers()]:
            mine, trained = self.pruner.bound_model.name, self.model.name
            other = "a copy of it" if trained == mine else repr(trained)
            raise ConfigError(
                f"This schedule prunes the model {mine!r}, and the one that is trained is {other}. "
                "Make a pruner for that one."
            )
        self._prune_if_due(self.iterations)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Prune if a step is due."""
        self._synced()
        if not self.iterations and not _raw_steps(self._counted()):
            raise ConfigError(
                f"The optimizer of {self.model.name!r} has taken no step, although a batch was "
                "trained on: the model trains with others. Say which one counts: "
                "PruningSchedule(..., optimizer=...)."
            )
        self._prune_if_due(self.iterations)

    def on_train_end(self, logs: Any = None) -> None:
        """Say so when training ended before the final sparsity was reached."""
        # An optimizer with use_ema=True has just written averages over the zeros.
        hold_masks(self.pruner.bound_model)
        step = self.iterations
        if step < self.end_step:
            warn(
                f"Training ended at step {step}, before end_step={self.end_step}, so the final "
                "sparsity is not reached. Train on with this callback, or choose an earlier "
                "end_step."
            )

    @property
    def iterations(self) -> int:
        """How often the optimizer has updated the weights."""
        return int(array_of(self._counted().iterations))

    def _counted(self) -> Any:
        optimizer = self.optimizer if self.optimizer is not None else self.model.optimizer
        if optimizer is None:
            raise ConfigError(
                f"{self.model.name!r} was compiled without an optimizer of its own; say whose "
                "steps count: PruningSchedule(..., optimizer=...)."
            )
        return optimizer

    def _synced(self) -> None:
        """Have the model's variables hold what they are by now; JAX keeps them elsewhere."""
        sync = getattr(self.model, "jax_state_sync", None)
        if sync is not None:
            sync()

    def _prune_if_due(self, now: int) -> bool:
        step = min(now, self.end_step)
        # The last step that is on the grid; the end is, whether or not frequency divides it.
        due = step
        if step < self.end_step:
            due -= (step - self.start_step) % self.frequency
        if due < self.start_step or due <= self._pruned_at:
            return False
        self._pruned_at = due
        progress = (due - self.start_step) / (self.end_step - self.start_step)

        def share(final: float) -> float:
            return self._sparsity(progress, final)

        amounts = self.pruner.amounts(share)
        if amounts == self._amounts:
            return False
        self._amounts = amounts
        self.pruner.compress_to(share)
        if self.model is not None and self.model is not self.pruner.bound_model:
            renew_compiled_step(self.model, changed=True)
        note(type(self).__name__, lambda: self._place(due), always=due == self.end_step)
        return True

    def _place(self, step: int) -> str:
        reached = max(self.pruner.sparsity().values(), default=0.0)
        return f"step {step}, sparsity {reached:.1%}"

    def _sparsity(self, progress: float, final: float) -> float:
        initial = min(self.initial_sparsity, final)
        now = self.curve(progress, initial, final)
        if not -1e-9 <= now < 1.0:
            name = getattr(self.curve, "__qualname__", repr(self.curve))
            raise ConfigError(
                f"The curve {name!r} returned {now!r} at progress {progress:g} (from {initial:g} "
                f"to {final:g}); a sparsity is at least 0 and less than 1."
            )
        return max(0.0, now)


def _raw_steps(optimizer: Any) -> int:
    """How often an optimizer was called, also where it only accumulated gradients."""
    return int(array_of(getattr(optimizer, "_iterations", 1)))


class AGPSchedule(PruningSchedule):
    """Automated gradual pruning: fast while much is redundant, slowly at the end.

    `final + (initial − final) · (1 − progress)³`

    Zhu and Gupta, To Prune, or Not to Prune, https://arxiv.org/abs/1710.01878

    Args:
        pruner: Makes the masks.
        end_step: The optimizer step at which the final sparsity is reached.
        start_step: The step at which pruning starts.
        frequency: Steps between two prunings; by default a hundredth of the way.
        initial_sparsity: Sparsity at the start.
        optimizer: Whose steps are counted, as for `PruningSchedule`.
    """

    def __init__(
        self,
        pruner: Pruner,
        end_step: int,
        start_step: int = 0,
        frequency: int | None = None,
        initial_sparsity: float = 0.0,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> None:
        super().__init__(
            pruner, end_step, start_step, frequency, initial_sparsity, cubic, optimizer
        )


def polynomial(power: float) -> Curve:
    """Return the curve `final + (initial − final) · (1 − progress)^power`; AGP's is the third.

    Args:
        power: The exponent.

    >>> [round(polynomial(2)(t / 4, 0.0, 0.8), 3) for t in (0, 2, 4)]
    [0.0, 0.6, 0.8]
    """
    given: Any = power
    if not isinstance(given, Real) or not 0 < power < float("inf"):
        raise ConfigError(f"power is {power!r}; it must be a number greater than 0.")

    def curve(progress: float, initial: float, final: float) -> float:
        share: float = (1.0 - progress) ** power
        return final + (initial - final) * share

    return curve

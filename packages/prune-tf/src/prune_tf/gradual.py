"""Gradual pruning under the names, keys and timetables that it has for torch models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

import keras

from prune_core.compressed import Compressed
from prune_core.config import load_config, parse
from prune_core.errors import ConfigError, did_you_mean, shown, warn
from prune_core.options import ChecksOptions
from prune_core.registry import get_pruner
from prune_core.schedule_keys import SCHEDULE_KEYS, timetables, without_schedule
from prune_core.timetable import Curve, Timetable, as_curve
from prune_tf.arrays import array_of
from prune_tf.masks import Masks, hold_masks, renew_compiled_step
from prune_tf.no_callback import NoCallback
from prune_tf.own_loop import check_outside, number_of
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.pruning.targets import Target

__all__ = ["AGPPruner", "GradualPruner", "LinearPruner", "class_of"]


class GradualPruner(NoCallback, metaclass=ChecksOptions):
    """Gradual pruning along a curve, during your own training, with any one-shot algorithm.

    `compress()` starts; from then on masks change with `fit(..., callbacks=[pruner.callback])`. A
    training loop of your own calls `update_epoch(epoch)` when an epoch begins, and `step(number)`
    after each step of the optimizer.

    Args:
        model: The model, masked in place.
        config_list: The rules. `sparsity` or `final_sparsity` is reached at the end,
            `initial_sparsity` is where the curve begins; `start_epoch`, `end_epoch` and
            `frequency`, or `start_step` and `end_step`, say when, for each entry.
        pruning_algorithm: The name of a registered pruner for Keras, or a class.
        curve: A registered schedule, or a function of `(progress, initial, final)`.
        optimizer: Whose steps are counted; by default that of the model that `fit` trains.
        pruning_params: Further arguments of the pruning algorithm.

    Attributes:
        pruner: The pruner that makes the masks.
        callback: For `fit`; it comes behind callbacks that write weights.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from prune_tf import LinearPruner
        >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(10)])
        >>> model.compile("sgd", "mse")
        >>> rules = [{"sparsity": 0.8, "op_types": ["Dense"], "end_epoch": 5}]
        >>> pruner = LinearPruner(model, rules, "level")
        >>> model, masks = pruner.compress()
        >>> x, y = np.ones((8, 4)), np.ones((8, 10))
        >>> history = model.fit(x, y, epochs=5, verbose=0, callbacks=[pruner.callback])
        >>> list(pruner.sparsity().values())
        [0.8]
    """

    default_curve: ClassVar[str] = "cubic"
    framework: ClassVar[str] = "keras"
    instead: ClassVar[str] = ", but has one: fit(..., callbacks=[pruner.callback])."

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        pruning_algorithm: str | type[Pruner] = "level",
        *,
        curve: str | Curve | None = None,
        optimizer: keras.optimizers.Optimizer | None = None,
        pruning_params: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        kind = class_of(pruning_algorithm)
        entries = parse(config_list, (*SCHEDULE_KEYS, *kind.config_keys))
        _check_when(config_list)
        self._tables = timetables(entries, None)
        self._curve = as_curve(curve or self.default_curve)
        self._now = {"epoch": 0, "step": 0}
        self._amounts: tuple[int, ...] | None = None
        plain = without_schedule(config_list)
        self.callback = _Following(self, optimizer)
        self.pruner = kind(model, plain, **dict(pruning_params or {}))

    def compress(self) -> Compressed[keras.Model, Masks]:
        """Start, and return the model and the masks to begin with."""
        self._prune()
        return Compressed(self.pruner.bound_model, self.pruner.masks)

    def update_epoch(self, epoch: int) -> bool:
        """Say that an epoch begins; masks change if they are due.

        Args:
            epoch: Its number, counted from 0.

        Returns:
            Whether they changed, as `step` does.
        """
        check_outside("update_epoch()")
        self._now["epoch"] = max(number_of("epoch", epoch), self._now["epoch"])
        return self._prune()

    def step(self, step: int | None = None) -> bool:
        """Say that the optimizer has taken a step; masks change if they are due.

        Args:
            step: How many there have been; one more than before unless given.

        Returns:
            Whether masks were made anew. They are made of the weights that the model has, and put
            into it: a loop that keeps weights outside of the model, as loops of JAX do, writes
            them back before this call, and takes them again and compiles its step anew where this
            is True.
        """
        check_outside("step()")
        now = self._now["step"] + 1 if step is None else number_of("step", step)
        self._now["step"] = max(now, self._now["step"])
        return self._prune()

    def sparsity(self) -> dict[str, float]:
        """Return the ratio of each selected layer's weight that is masked."""
        return self.pruner.sparsity()

    def save_masks(self, path: str | PathLike[str]) -> None:
        """Write the masks in force to a safetensors file.

        Args:
            path: The file.
        """
        self.pruner.save_masks(path)

    def unwrap(self) -> keras.Model:
        """Take all masks off the model, leaving the zeros in its weights, and return it."""
        return self.pruner.unwrap()

    def _table(self, target: Target) -> Timetable:
        return self._tables[target.config["entry"]]

    def _ratio(self, target: Target) -> float:
        table = self._table(target)
        return table.sparsity(self._now[table.unit], self._curve)

    def _prune(self) -> bool:
        amounts = self.pruner.amounts_at(self._ratio)
        if amounts == self._amounts:
            return False
        self._amounts = amounts
        self.pruner.compress_at(self._ratio)
        trained = getattr(self.callback, "model", None)
        if trained is not None and trained is not self.pruner.bound_model:
            renew_compiled_step(trained, changed=True)
        return True

    @property
    def _left(self) -> str:
        """What has not been reached yet, for a warning; empty if nothing."""
        for target in self.pruner.targets:
            table = self._table(target)
            if self._now[table.unit] < table.last:
                return f"{table.unit} {self._now[table.unit]}, before {table.unit} {table.last}"
        return ""


class AGPPruner(GradualPruner):
    """Automated gradual pruning: fast while much is redundant, slowly at the end.

    `s(t) = s_f + (s_i − s_f) · (1 − t/n)³`, from the initial sparsity s_i to the final s_f. All
    arguments are those of `GradualPruner`.

    Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for model
    compression, https://arxiv.org/abs/1710.01878
    """

    default_curve: ClassVar[str] = "cubic"


class LinearPruner(GradualPruner):
    """Gradual pruning in equal steps; all arguments are those of `GradualPruner`."""

    default_curve: ClassVar[str] = "linear"


class _Following(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a pruner how far `fit` is."""

    def __init__(self, pruner: GradualPruner, optimizer: Any) -> None:
        super().__init__()
        if optimizer is not None and not hasattr(optimizer, "iterations"):
            raise ConfigError(
                f"optimizer is {shown(optimizer)}; it must be a Keras optimizer, whose steps count."
            )
        self._pruner, self._optimizer = pruner, optimizer

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that it is the pruner's model that is trained."""
        mine = self._pruner.pruner.bound_model
        if not any(mine is each for each in self.model._flatten_layers()):
            raise ConfigError(
                f"This pruner prunes the model {mine.name!r}, and the one that is trained is "
                f"another ({self.model.name!r}). Make a pruner for that one."
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Prune if that is due in this epoch."""
        self._pruner.update_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Prune if that is due at this step."""
        sync = getattr(self.model, "jax_state_sync", None)
        if sync is not None:
            sync()
        optimizer = self._optimizer if self._optimizer is not None else self.model.optimizer
        if optimizer is not None:
            self._pruner.step(int(array_of(optimizer.iterations)))

    def on_train_end(self, logs: Any = None) -> None:
        """Say so when training ended before the final sparsity was reached."""
        hold_masks(self._pruner.pruner.bound_model)
        if left := self._pruner._left:
            warn(
                f"Training ended at {left}, at which the final sparsity is reached. Train on with "
                "this callback, or choose an earlier end."
            )


def class_of(algorithm: Any) -> type[Pruner]:
    """Return the one-shot pruner of a name, or the class itself."""
    if isinstance(algorithm, str):
        algorithm = get_pruner(algorithm, framework="keras")
    if not (isinstance(algorithm, type) and issubclass(algorithm, Pruner)):
        raise ConfigError(
            f"pruning_algorithm is {shown(algorithm)}; it must be a one-shot pruner of Keras "
            "models, such as 'level' or prune_tf.L1NormPruner."
        )
    return algorithm


def _check_when(config_list: Sequence[Mapping[str, Any]]) -> None:
    """Refuse entries of which nobody knows when their sparsity is reached."""
    ends = ("end_epoch", "end_step")
    for at, entry in enumerate(config_list):
        if entry.get("exclude") or any(end in entry for end in ends):
            continue
        odd = next((key for key in entry if did_you_mean(key, ends)), None)
        raise ConfigError(
            f"config_list[{at}] does not say when its sparsity is reached. Add 'end_epoch' or "
            "'end_step'." + (f" It has {odd!r}." if odd else "")
        )

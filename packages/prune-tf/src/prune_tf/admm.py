"""ADMM: training towards sparse weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from prune_core.callables import check_takes_model
from prune_core.compressed import Compressed
from prune_core.config import load_config
from prune_core.errors import ConfigError
from prune_core.options import ChecksOptions
from prune_core.progress import Task
from prune_core.seed import as_seed
from prune_speedup.search.admm import ADMM, DEFAULT_RHO, gap, missed, rho_of_entries
from prune_speedup.search.trials_file import digest_of
from prune_tf.admm_state import AdmmState
from prune_tf.arrays import array_of
from prune_tf.gradual import class_of
from prune_tf.masks import Masks, renew_compiled_step
from prune_tf.no_callback import NoCallback
from prune_tf.pruning.penalties import penalised
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.pruning.targets import Target
from prune_tf.seeds import seeded

__all__ = ["ADMMPruner"]


class ADMMPruner(NoCallback, metaclass=ChecksOptions):
    """Trains weights W towards a sparse copy Z of themselves, and then prunes in one shot.

    In each iteration the loss gets `Σ ρ/2 · ‖W − Z + U‖²` while you train; then
    `Z = Π(W + U)`, where Π zeroes what the one-shot algorithm would prune, and `U = U + W − Z`.

    Zhang et al., A Systematic DNN Weight Pruning Framework using Alternating Direction Method of
    Multipliers, https://arxiv.org/abs/1804.03294

    Args:
        model: The model, masked in place. Training changes its weights.
        config_list: The rules; `rho` is the weight ρ of the penalty, 0.0001 unless given.
        finetune: Takes the model and trains it for an epoch, with `fit` or another loop that adds
            `model.losses`.
        iterations: How often Z and U are renewed.
        training_epochs: How often `finetune` is called in between.
        granularity: `"fine-grained"` for `level`, `"coarse-grained"` for `l1`.
        pruning_algorithm: A registered pruner, or a class, instead of a granularity.
        row: ρ for entries without `rho`.
        pruning_params: Further arguments of the pruning algorithm.
        checkpoint: A file from which the same call goes on after the last complete iteration.
        seed: Seed of what is drawn in each iteration. Unless given, 0 with a checkpoint, and
            without one nothing is seeded.

    Attributes:
        pruner: The pruner that makes the masks.
        history: The iterations: number, the gap `‖W − Z‖ / ‖W‖` of each layer, and the largest.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from prune_tf import ADMMPruner
        >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(10)])
        >>> model.compile("adam", "mse")
        >>> x, y = np.ones((8, 4)), np.ones((8, 10))
        >>> pruner = ADMMPruner(
        ...     model,
        ...     [{"sparsity": 0.75, "op_types": ["Dense"], "rho": 0.5}],
        ...     finetune=lambda model: model.fit(x, y, verbose=0),
        ...     iterations=2,
        ...     training_epochs=1,
        ... )
        >>> model, masks = pruner.compress()
        >>> float(masks["dense"]["kernel"].mean())
        0.25
    """

    framework: ClassVar[str] = "keras"
    instead: ClassVar[str] = (
        ": it renews what weights are trained towards between trainings. Give it finetune=..., "
        "and call compress()."
    )

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        finetune: Callable[[keras.Model], Any] | None = None,
        iterations: int = 30,
        training_epochs: int = 5,
        granularity: str = "fine-grained",
        *,
        pruning_algorithm: str | type[Pruner] | None = None,
        row: float = DEFAULT_RHO,
        pruning_params: Mapping[str, Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        seed: int | None = None,
    ) -> None:
        if finetune is None:
            raise ConfigError(
                "ADMMPruner trains the model: give finetune=, a function that takes the model and "
                "trains it for an epoch."
            )
        check_takes_model("finetune", finetune, "the model and trains it")
        self.settings = ADMM(iterations, training_epochs, granularity, row)
        self.finetuner, self.checkpoint = finetune, checkpoint
        self.seed = None if seed is None and checkpoint is None else as_seed(seed or 0)
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        kind = class_of(pruning_algorithm or self.settings.algorithm)
        self.config_list = config_list
        plain, self._rho = rho_of_entries(config_list, kind.config_keys, row)
        self.pruner = kind(model, plain, **dict(pruning_params or {}))
        self.history: list[dict[str, Any]] = []

    def compress(self) -> Compressed[keras.Model, Masks]:
        """Train, prune, and return the model and the masks.

        Ctrl-C ends the training; the model is then pruned as it is, after at least one iteration.
        """
        model = self.pruner.bound_model
        pulls = [
            _Pull(each, self._rho[each.config["entry"]])
            for each in self.pruner.targets
            if each.variable.trainable
        ]
        state = AdmmState(self.checkpoint, self._run(), model, pulls)
        self.history = state.read()
        epochs = self.settings.training_epochs
        each = f"of {epochs} epoch{'' if epochs == 1 else 's'} each"
        title, total = type(self).__name__, self.settings.iterations
        try:
            with (
                Task(title, total, "iteration", each, announce=True) as task,
                penalised(model, [(pull.variable, pull) for pull in pulls]),
            ):
                for known in self.history:
                    task.advance(f"gap {known['gap']:.3g}", replayed=True)
                for number in range(len(self.history), total):
                    with self._drawing(number):
                        for epoch in range(epochs):
                            task.say(f"training {epoch + 1} of {epochs}")
                            self.finetuner(model)
                        gaps = self._renewed(pulls)
                    most = max(gaps.values(), default=0.0)
                    self.history.append({"trial": number, "gap": most, "gaps": gaps})
                    state.write(self.history)
                    task.advance(f"gap {most:.3g}")
        except KeyboardInterrupt:
            if not self.history:
                raise
        self.pruner.compress()
        return Compressed(model, self.pruner.masks)

    def _drawing(self, number: int) -> AbstractContextManager[None]:
        """Let what an iteration draws depend on its number, and not on the iterations before it."""
        return nullcontext() if self.seed is None else seeded(self.seed * 1_000_003 + number)

    def _run(self) -> dict[str, Any]:
        """What the training depends on."""
        weights = (np.ascontiguousarray(each.weight).data for each in self.pruner.targets)
        return {
            "algorithm": type(self.pruner).__name__,
            "config_list": list(self.config_list),
            "rho": list(self._rho.values()),
            "iterations": self.settings.iterations,
            "training_epochs": self.settings.training_epochs,
            "seed": self.seed,
            "weights": digest_of(weights),
        }

    def unwrap(self) -> keras.Model:
        """Take all masks off the model, leaving the zeros in its weights, and return it."""
        return self.pruner.unwrap()

    def _renewed(self, pulls: list[_Pull]) -> dict[str, float]:
        """Set `Z = Π(W + U)` and `U = U + W − Z`, and return the gap of each layer."""
        for pull in pulls:
            pull.begin()
        try:
            masks = self.pruner.masks_at(lambda target: float(target.config["sparsity"]))
        finally:
            for pull in pulls:
                pull.end()
        gaps = {pull.target.name: pull.renewed(masks) for pull in pulls}
        renew_compiled_step(self.pruner.bound_model, changed=True)
        return gaps


class _Pull:
    """The penalty `ρ/2 · ‖W − Z + U‖²` on one weight, with its Z and U.

    It reads ρ, Z and U from variables, so that a step that is compiled once sees them change.
    """

    def __init__(self, target: Target, rho: float) -> None:
        self.target, self.variable, self.rho = target, target.variable, rho
        weight = self._weight
        self._trained = weight
        self.z, self.u = self._held(weight), self._held(np.zeros_like(weight))
        self._strength = self._held(np.asarray(rho, weight.dtype))

    def __call__(self, weight: Any) -> Any:
        """Return the penalty."""
        z, u = ops.convert_to_tensor(self.z), ops.convert_to_tensor(self.u)
        squares = ops.sum(ops.square(weight - z + u))
        return 0.5 * ops.convert_to_tensor(self._strength) * squares

    def begin(self) -> None:
        """Let the weight be W + U, which is what the one-shot algorithm is to look at.

        What that computes of losses is not to be of the penalty.
        """
        self._trained = self._weight
        self.variable.assign(self._trained + array_of(self.u))
        self._strength.assign(0.0)

    def end(self) -> None:
        """Let the weight be W again."""
        self.variable.assign(self._trained)
        self._strength.assign(self.rho)

    def renewed(self, masks: Masks) -> float:
        """Renew Z and U, and return how far W is from Z.

        Args:
            masks: What the one-shot algorithm would leave of W + U.
        """
        kept = masks[self.target.layer_name][self.target.slot.name]
        weight, u = self._trained, array_of(self.u)
        z = np.where(kept, weight + u, np.zeros_like(weight))
        self.z.assign(z)
        self.u.assign(missed(u, weight, z))
        return gap(weight, z)

    @property
    def _weight(self) -> np.ndarray[Any, Any]:
        return np.array(array_of(self.variable))

    def _held(self, value: np.ndarray[Any, Any]) -> keras.Variable:
        return keras.Variable(value, dtype=self.variable.dtype, trainable=False)

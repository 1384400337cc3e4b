"""A search for the sparsity of each layer, by simulated annealing."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.amount import DEFAULT_CAP
from prune_core.callables import check_takes_model
from prune_core.compressed import Compressed
from prune_core.config import load_config
from prune_core.errors import ConfigError, PruneError, did_you_mean, shown
from prune_core.options import ChecksOptions
from prune_core.progress import Task
from prune_speedup.sparsities.annealing import Annealing
from prune_speedup.sparsities.pieces import Piece
from prune_speedup.sparsities.weights import WeightBudget
from prune_tf.arrays import array_of
from prune_tf.gradual import class_of
from prune_tf.masks import Masks, masks_of, unwrap
from prune_tf.pruning.pruner import ConfigList, Pruner

__all__ = ["SimulatedAnnealingPruner"]

Sparsities = dict[str, float]
SIGNS = {"maximize": 1.0, "minimize": -1.0}


class SimulatedAnnealingPruner(metaclass=ChecksOptions):
    """Searches for the sparsity of each layer that scores best, by simulated annealing.

    It begins with the uniform distribution, tries a random one in which larger layers lose more,
    and goes on from the better by ever smaller random changes. A change for the worse by ΔE is
    accepted with probability `exp(−ΔE / (T/T₀ · E))`, where E is the mean change so far: so what
    scale a score has does not matter.

    Liu et al., AutoCompress: An Automatic DNN Structured Pruning Framework for Ultra-High
    Compression Rates, https://arxiv.org/abs/1907.03141

    Args:
        model: The model, masked in place by `compress()`. A trial leaves its weights as they were.
        config_list: The rules. The sparsity of an entry is that of all its layers together, and
            no layer loses more than `max_sparsity_per_layer`, 0.99 unless given.
        evaluate: Takes the model and returns its score.
        optimize_mode: `"maximize"` or `"minimize"`.
        start_temperature: The first temperature.
        stop_temperature: The temperature at which the search ends.
        cool_down_rate: The factor of the temperature with each trial.
        perturbation_magnitude: The largest change of a layer's sparsity, at first.
        tries: The number of changes tried at each temperature.
        pruning_algorithm: A registered pruner, or a class.
        pruning_params: Further arguments of the pruning algorithm.
        seed: Seed of the random numbers of the search.

    Attributes:
        history: The trials: the sparsity of each layer, and the score.

    Example:
        >>> import keras
        >>> from prune_tf import SimulatedAnnealingPruner
        >>> model = keras.Sequential(
        ...     [
        ...         keras.layers.Input((4,)),
        ...         keras.layers.Dense(8, name="a"),
        ...         keras.layers.Dense(8, name="b"),
        ...     ]
        ... )
        >>> def weight_of_a(model):
        ...     return float(keras.ops.sum(keras.ops.abs(model.get_layer("a").kernel)))
        >>> rules = [{"sparsity": 0.5, "op_types": ["Dense"]}]
        >>> pruner = SimulatedAnnealingPruner(model, rules, weight_of_a, stop_temperature=50)
        >>> model, masks = pruner.compress()
        >>> best = max(pruner.history, key=lambda trial: trial["score"])["sparsities"]
        >>> best["a"] < 0.5 < best["b"]
        True
    """

    framework: ClassVar[str] = "keras"

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        evaluate: Callable[[keras.Model], float],
        optimize_mode: str = "maximize",
        *,
        start_temperature: float = 100.0,
        stop_temperature: float = 20.0,
        cool_down_rate: float = 0.9,
        perturbation_magnitude: float = 0.35,
        tries: int = 1,
        pruning_algorithm: str | type[Pruner] = "level",
        pruning_params: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if not callable(evaluate):
            raise ConfigError(
                f"evaluate is {shown(evaluate)}; it must be a function that takes the model and "
                "returns its score."
            )
        check_takes_model("evaluate", evaluate)
        if optimize_mode not in SIGNS:
            raise ConfigError(
                f"optimize_mode is {optimize_mode!r}; it must be 'maximize' or 'minimize'."
                f"{did_you_mean(str(optimize_mode), SIGNS)}"
            )
        self.annealing = Annealing(
            start_temperature, stop_temperature, cool_down_rate, perturbation_magnitude, tries
        )
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        self.evaluate, self.optimize_mode, self.seed = evaluate, optimize_mode, seed
        self.history: list[dict[str, Any]] = []
        self._kind, self._params = class_of(pruning_algorithm), dict(pruning_params or {})
        if self._params.get("mode", "normal") != "normal":
            raise ConfigError(
                f"pruning_params has the mode {self._params['mode']!r}; the search itself gives "
                "each layer its sparsity, so that the mode has to be 'normal'."
            )
        if isinstance(model, keras.Model) and masks_of(model):
            raise ConfigError(
                f"{model.name!r} is masked already, and every trial begins with the dense model. "
                "Call prune_tf.unwrap(model) first."
            )
        self.config_list = config_list
        pruner = self._pruner(model)
        self.bound_model = pruner.bound_model
        unwrap(self.bound_model)

    def compress(self) -> Compressed[keras.Model, Masks]:
        """Search, put the masks of the best trial in force, and return the model and them."""
        pruner = self._pruner(self.bound_model)
        budget, groups, sizes = self._budget(pruner)
        unwrap(self.bound_model)
        nothing = dict.fromkeys(sizes, 0.0)
        walk = self.annealing.walk(
            budget.fitted(dict.fromkeys(sizes, 1.0), nothing),
            groups,
            sizes,
            lambda shares: budget.fitted(shares, nothing),
            random.Random(self.seed),
            lambda plan, score, number: None,
        )
        self.history = []
        with Task(type(self).__name__, self.annealing.length, "trial") as task:
            plans = next(walk)
            while True:
                scores = []
                for plan in plans:
                    scores.append(self._tried(plan))
                    task.advance(f"score {self.history[-1]['score']:g}")
                try:
                    plans = walk.send(scores)
                except StopIteration as ended:
                    best = ended.value
                    break
        pruner = self._pruner(self.bound_model)
        masks = pruner.compress_at(lambda target: best[2][target.name])
        return Compressed(self.bound_model, masks)

    def unwrap(self) -> keras.Model:
        """Take all masks off the model, leaving the zeros in its weights, and return it."""
        return unwrap(self.bound_model)

    def _pruner(self, model: keras.Model) -> Pruner:
        return self._kind(model, self.config_list, **self._params)

    def _tried(self, plan: Sparsities) -> float:
        """Return what the model scores with a plan, negative where less is better."""
        model = self.bound_model
        before = [(each, np.array(array_of(each))) for each in model.weights]
        pruner = self._pruner(model)
        try:
            pruner.compress_at(lambda target: plan[target.name])
            score = float(self.evaluate(model))
        finally:
            unwrap(model)
            for variable, value in before:
                variable.assign(value)
        if not np.isfinite(score):
            raise PruneError(f"evaluate returned {score}; a score has to be a number.")
        self.history.append({"sparsities": dict(plan), "score": score})
        return SIGNS[self.optimize_mode] * score

    def _budget(self, pruner: Pruner) -> tuple[WeightBudget, list[list[str]], dict[str, int]]:
        """Return what may be left, the layers of each entry, and how large layers are."""
        sizes = {each.name: each.alive.size for each in pruner.targets}
        entries: dict[int, list[str]] = defaultdict(list)
        caps, asked, pieces = {}, {}, []
        for each in pruner.targets:
            entries[each.config["entry"]].append(each.name)
            asked[each.config["entry"]] = float(each.config["sparsity"])
            caps[each.name] = float(each.config.get("max_sparsity_per_layer", DEFAULT_CAP))
            parts = pruner.alive(each).size
            pieces.append(Piece(parts, {each.name: sizes[each.name] // parts}))
        together = [(names, asked[entry]) for entry, names in entries.items()]
        budget = WeightBudget(together, sizes, caps, pieces)
        return budget, [names for names, _ in together], sizes

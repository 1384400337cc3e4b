"""Simulated annealing of the sparsity of each layer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from typing import Any, ClassVar, Unpack

import keras

from prune_speedup.search.annealing import Annealing
from prune_speedup.search.plans import Plans, Sparsities
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.search.base import Options, SearchPruner

__all__ = ["SimulatedAnnealingPruner"]


class SimulatedAnnealingPruner(SearchPruner):
    """Searches for the sparsity of each layer that scores best, by simulated annealing.

    It begins with the uniform distribution, tries a random one in which larger layers lose more,
    and goes on from the better by ever smaller random changes. A change for the worse by ΔE is
    accepted with probability `exp(−ΔE / (T/T₀ · E))`, where E is the mean change so far: so what
    scale a score has does not matter.

    Liu et al., AutoCompress: An Automatic DNN Structured Pruning Framework for Ultra-High
    Compression Rates, https://arxiv.org/abs/1907.03141

    Args:
        model: The model, masked in place by `compress()`. Nothing but `finetune` changes its
            weights.
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
        experiment_data_dir: A folder for the trials, from which the search goes on.
        finetune: Takes the model and trains it, before each evaluation. The weights go back after
            each trial, and the result has those of the best.
        **options: `target=`, `seed=` and what else `SearchPruner` takes.

    Attributes:
        history: The trials: number, sparsity of each layer, and score.

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

    first_tuned: ClassVar[int | None] = 0

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        evaluate: Callable[[keras.Model], Any] | None = None,
        optimize_mode: str = "maximize",
        *,
        start_temperature: float = 100.0,
        stop_temperature: float = 20.0,
        cool_down_rate: float = 0.9,
        perturbation_magnitude: float = 0.35,
        experiment_data_dir: str | PathLike[str] | None = None,
        tries: int = 1,
        pruning_algorithm: str | type[Pruner] = "level",
        finetune: Callable[[keras.Model], Any] | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.annealing = Annealing(
            start_temperature, stop_temperature, cool_down_rate, perturbation_magnitude, tries
        )
        super().__init__(
            model,
            config_list,
            evaluate,
            optimize_mode,
            finetune=finetune,
            pruning_algorithm=pruning_algorithm,
            experiment_data_dir=experiment_data_dir,
            **options,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on."""
        return asdict(self.annealing)

    @property
    def length(self) -> int:
        """The number of trials: two at first, and `tries` for each temperature."""
        return self.annealing.length

    def plans(self) -> Plans:
        """Yield distributions, each close to the last accepted one."""
        nothing: Sparsities = dict.fromkeys(self.sizes, 0.0)
        best = yield from self.annealing.walk(
            self.uniform(),
            [names for names, _ in self.budgets],
            self.sizes,
            lambda shares: self.budget.fitted(shares, nothing),
            random.Random(self.seed),
            self.keep,
        )
        if best is not None and self.finetune is not None:
            score, number, plan = best
            self.adopt(1, number, plan, score)

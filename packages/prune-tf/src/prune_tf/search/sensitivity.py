"""Sensitivity analysis: how much of each layer can go before the score drops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Unpack

import keras

from prune_speedup.search.plans import Plans, Sparsities
from prune_speedup.search.sensitivity import RATIOS, Sensitivity
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.search.base import Options, SearchPruner
from prune_tf.search.runner import SIGNS

__all__ = ["SensitivityPruner"]


class SensitivityPruner(SearchPruner):
    """Prunes each layer in proportion to how much it tolerates before the score drops.

    In each round, every layer is pruned alone, by more and more, until the score has dropped by
    `acc_drop_threshold` below that at the beginning of the round; the largest sparsity before that
    is what the layer tolerates. All layers are then pruned in proportion to it, by
    `sparsity_per_iter` of all weights, and fine-tuned with `finetune`. The next round starts there.

    Han et al., Learning both Weights and Connections for Efficient Neural Networks,
    https://arxiv.org/abs/1506.02626

    Args:
        model: The model, masked in place by `compress()`. Nothing but `finetune` changes its
            weights.
        config_list: The rules. The sparsity of an entry is that of all its layers together, and
            no layer loses more than `max_sparsity_per_layer`, 0.95 unless given.
        evaluate: Takes the model and returns its score.
        finetune: Takes the model and trains it, after each round.
        pruning_algorithm: A registered pruner, or a class.
        sparsity_proportion_calc: Takes `{layer: sparsity that it tolerates}` and returns the
            shares in which layers are pruned; those themselves unless given.
        sparsity_per_iter: The ratio of all weights that each round prunes.
        acc_drop_threshold: How much the score may drop.
        ratios: The sparsities that are tried.
        optimize_mode: `"maximize"` or `"minimize"`.
        experiment_data_dir: A folder for the trials, from which the search goes on.
        **options: `target=`, `seed=` and what else `SearchPruner` takes.

    Attributes:
        history: The trials: number, sparsity of each layer, and score.
        curves: The score of each layer pruned alone: round, layer, sparsity and score.

    Example:
        >>> import keras
        >>> from prune_tf import SensitivityPruner
        >>> model = keras.Sequential(
        ...     [
        ...         keras.layers.Input((4,)),
        ...         keras.layers.Dense(8, name="a"),
        ...         keras.layers.Dense(4, name="b"),
        ...     ]
        ... )
        >>> def weight_of_a(model):
        ...     return float(keras.ops.sum(keras.ops.abs(model.get_layer("a").kernel)))
        >>> rules = [{"sparsity": 0.25, "op_types": ["Dense"]}]
        >>> pruner = SensitivityPruner(model, rules, weight_of_a, ratios=[0.25, 0.5, 0.75])
        >>> model, masks = pruner.compress()
        >>> pruner.best["a"] < 0.25 < pruner.best["b"]
        True
    """

    default_cap: ClassVar[float] = 0.95
    first_tuned: ClassVar[int | None] = None

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        evaluate: Callable[[keras.Model], Any] | None = None,
        finetune: Callable[[keras.Model], Any] | None = None,
        pruning_algorithm: str | type[Pruner] = "l1",
        sparsity_proportion_calc: Callable[[Sparsities], Mapping[str, float]] | None = None,
        sparsity_per_iter: float = 0.1,
        acc_drop_threshold: float = 0.05,
        *,
        ratios: Sequence[float] = RATIOS,
        optimize_mode: str = "maximize",
        experiment_data_dir: str | PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.analysis = Sensitivity(
            sparsity_per_iter, acc_drop_threshold, ratios, sparsity_proportion_calc
        )
        self.curves: list[dict[str, Any]] = []
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
        return self.analysis.settings

    def plans(self) -> Plans:
        """Yield plans that prune one layer more and more, and one for all after each round."""
        self.curves = []
        train = None if self.finetune is None else self._train
        return self.analysis.walk(self.caps, self.budget, self.keep, self._seen, train)

    def _train(self, number: int, plan: Sparsities) -> None:
        # No trial has this number, so what training draws depends on the round alone.
        self.adopt(number, 500_000 + number, plan, None)

    def _seen(self, number: int, layer: str, ratio: float, score: float | None) -> None:
        plain = None if score is None else SIGNS[self.optimize_mode] * score
        point = {"round": number, "layer": layer, "sparsity": ratio, "score": plain}
        self.curves.append(point)

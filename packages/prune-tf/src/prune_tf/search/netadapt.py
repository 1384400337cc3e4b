"""NetAdapt: prune the least important layer, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from typing import Any, Unpack

import keras

from prune_speedup.search.netadapt import NetAdapt
from prune_speedup.search.plans import Plans
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.search.base import Options, SearchPruner

__all__ = ["NetAdaptPruner"]


class NetAdaptPruner(SearchPruner):
    """Prunes step by step the layer whose loss costs least.

    In each round every layer is a candidate: it alone is pruned just far enough to reduce the
    weights of the model by `sparsity_per_iteration` of all, fine-tuned for a short time, and
    evaluated. The best candidate is kept, with its weights, and the next round starts from it,
    until the budget is met.

    Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications,
    https://arxiv.org/abs/1804.03230

    Args:
        model: The model, masked in place by `compress()`. Fine-tuning changes its weights.
        config_list: The rules. The sparsity of an entry is that of all its layers together, and
            no layer loses more than `max_sparsity_per_layer`, 0.99 unless given.
        finetune: Takes the model and trains it for a short time. Weights go back after each
            candidate, and so does the optimizer of a compiled model.
        evaluate: Takes the model and returns its score.
        optimize_mode: `"maximize"` or `"minimize"`.
        pruning_algorithm: A registered pruner, or a class.
        sparsity_per_iteration: The saving of each round, as a ratio of the dense cost. If no layer
            can bring it, it is halved.
        experiment_data_dir: A folder for the trials, from which the search goes on.
        **options: `target=`, `seed=` and what else `SearchPruner` takes.

    Attributes:
        history: The trials: number, sparsity of each layer, and score.

    Example:
        >>> import keras
        >>> from prune_tf import NetAdaptPruner
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
        >>> pruner = NetAdaptPruner(
        ...     model, rules, evaluate=weight_of_a, sparsity_per_iteration=0.125
        ... )
        >>> model, masks = pruner.compress()
        >>> pruner.best
        {'a': 0.0, 'b': 0.5}
    """

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        finetune: Callable[[keras.Model], Any] | None = None,
        evaluate: Callable[[keras.Model], Any] | None = None,
        optimize_mode: str = "maximize",
        pruning_algorithm: str | type[Pruner] = "l1",
        sparsity_per_iteration: float = 0.05,
        experiment_data_dir: str | PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.netadapt = NetAdapt(sparsity_per_iteration)
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
        return asdict(self.netadapt)

    def plans(self) -> Plans:
        """Yield the dense model, then the candidates of each round."""
        return self.netadapt.walk(dict.fromkeys(self.sizes, 0.0), self.budget, self.adopt)

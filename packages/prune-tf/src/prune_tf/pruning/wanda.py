"""Single weights by their size, times the length of what they are multiplied with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.amount import number_to_prune
from prune_tf.arrays import array_of
from prune_tf.pruning.allocate import check_scores, keep
from prune_tf.pruning.batches import Data
from prune_tf.pruning.data import DataPruner
from prune_tf.pruning.observe import observed
from prune_tf.pruning.pruner import ConfigList
from prune_tf.pruning.targets import Target

__all__ = ["WandaPruner"]

Array = np.ndarray[Any, Any]


class WandaPruner(DataPruner):
    """Prunes the single weights that are smallest times the length of their input.

    `score[i, j] = |W[i, j]| · ‖X[j]‖₂`, with `‖X[j]‖₂` the length of input feature j over all
    rows that pass. Scores are compared within each row: all outputs lose equally many.

    Sun et al., A Simple and Effective Pruning Approach for Large Language Models,
    https://arxiv.org/abs/2306.11695

    Args:
        model: The model, masked in place.
        config_list: The rules, for dense layers.
        data: Samples, as an array or in batches; targets that come with them are ignored.
        batches: How many batches count, or None for all.
        mode: `"row"` compares the weights of each output, `"normal"` those of each layer.
        calibrate: Takes the model and runs it on some inputs, in the place of `data`.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from prune_tf import WandaPruner
        >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(6, name="fc")])
        >>> pruner = WandaPruner(
        ...     model, [{"sparsity": 0.5, "op_types": ["Dense"]}], data=np.ones((8, 4), "float32")
        ... )
        >>> model, masks = pruner.compress()
        >>> masks["fc"]["kernel"].sum(axis=0).tolist()
        [2, 2, 2, 2, 2, 2]
    """

    default_types: ClassVar[tuple[str, ...]] = ("Dense",)
    supported_types: ClassVar[tuple[str, ...]] = ("Dense",)
    modes: ClassVar[tuple[str, ...]] = ("row", "normal")
    per_channel: ClassVar[bool] = False

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        data: Data | None = None,
        batches: int | None = None,
        mode: str = "row",
        calibrate: Callable[[keras.Model], Any] | None = None,
    ) -> None:
        super().__init__(model, config_list, data, batches, mode, calibrate)

    def scores(self) -> dict[str, Array]:
        """Run the model on the data, and multiply weights with the lengths of their inputs."""
        squares: dict[str, Array] = {}

        def look(name: str, layer: Any, given: Any) -> None:
            value = array_of(keras.ops.cast(given, "float32")).astype(np.float64)
            flat = value.reshape(-1, value.shape[-1])
            squares[name] = squares.get(name, 0.0) + np.square(flat).sum(axis=0)

        layers = {target.name: target.layer for target in self.targets}
        with observed(layers, look, inputs=True):
            self.run()
        self.check_seen(layers, squares)
        return {t.name: np.abs(t.weight) * np.sqrt(squares[t.name]) for t in self.targets}

    def allocate(
        self,
        scores: Mapping[str, Array],
        alive: Mapping[str, Array],
        ratio: Callable[[Target], float],
    ) -> dict[str, Array]:
        """Return a mask of the shape of each layer's scores.

        Args:
            scores: The scores of each target.
            alive: Which of them may still be pruned.
            ratio: The share that goes.
        """
        if self.mode != "row":
            return super().allocate(scores, alive, ratio)
        masks = {}
        for target in self.targets:
            score, left = scores[target.name], alive[target.name]
            check_scores(target.name, score)
            count = number_to_prune(ratio(target), score.shape[1])
            rows = zip(score, left, strict=True)
            masks[target.name] = np.stack([keep(row, count, living) for row, living in rows])
        return masks

"""Output channels by how well the others can replace them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from prune_tf.pruning.pruner import Pruner
from prune_tf.pruning.rows import rows_of

__all__ = ["FPGMPruner"]

Array = np.ndarray[Any, Any]


class FPGMPruner(Pruner):
    """Prunes the output channels nearest to the geometric median of all.

    `score[i] = Σ_j ‖w[i] − w[j]‖₂`

    He et al., Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
    Acceleration, https://arxiv.org/abs/1811.00250

    Args:
        model: The model, masked in place.
        config_list: The rules.
        mode: `"normal"` ranks the channels of each layer, `"dependency_aware"` those of layers
            that can only lose the same channels together.

    Example:
        >>> import keras
        >>> from prune_tf import FPGMPruner
        >>> model = keras.Sequential(
        ...     [keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="conv")]
        ... )
        >>> pruner = FPGMPruner(model, [{"sparsity": 0.25, "op_types": ["Conv2D"]}])
        >>> model, masks = pruner.compress()
        >>> int(masks["conv"]["bias"].sum())
        6
    """

    reads_weights: ClassVar[bool] = True
    modes: ClassVar[tuple[str, ...]] = ("normal", "dependency_aware")

    def scores(self) -> dict[str, Array]:
        """Return the sum of distances to all other channels of the layer."""
        return {t.name: _distances(rows_of(t.weight, t.axis)) for t in self.targets}


def _distances(rows: Array) -> Array:
    # Differences, row by row, not the dot-product trick: that one loses the digits which order
    # filters that are nearly alike; and all pairs at once would not fit in memory.
    return np.array([np.linalg.norm(rows - row, axis=1).sum() for row in rows])

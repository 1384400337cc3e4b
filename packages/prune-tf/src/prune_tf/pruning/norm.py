"""Output channels by the norm of their weights."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from prune_tf.pruning.pruner import Pruner
from prune_tf.pruning.rows import rows_of

__all__ = ["L1NormPruner", "L2NormPruner"]


class _NormPruner(Pruner):
    p: ClassVar[int]
    reads_weights: ClassVar[bool] = True
    modes: ClassVar[tuple[str, ...]] = ("normal", "dependency_aware")

    def scores(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return a norm for each output channel."""
        return {
            target.name: np.linalg.norm(rows_of(target.weight, target.axis), self.p, axis=1)
            for target in self.targets
        }


class L1NormPruner(_NormPruner):
    """Prunes the output channels whose weights are smallest in L1 norm.

    `score[i] = Σ |w[i]|`

    Li et al., Pruning Filters for Efficient ConvNets, https://arxiv.org/abs/1608.08710

    Args:
        model: The model, masked in place.
        config_list: The rules.
        mode: `"normal"` ranks the channels of each layer, `"dependency_aware"` those of layers
            that can only lose the same channels together.

    Example:
        >>> import keras
        >>> from prune_tf import L1NormPruner
        >>> model = keras.Sequential(
        ...     [keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="conv")]
        ... )
        >>> pruner = L1NormPruner(model, [{"sparsity": 0.25, "op_types": ["Conv2D"]}])
        >>> model, masks = pruner.compress()
        >>> int(masks["conv"]["bias"].sum())
        6
    """

    p = 1


class L2NormPruner(_NormPruner):
    """Prunes the output channels whose weights are smallest in L2 norm.

    `score[i] = √(Σ w[i]²)`; otherwise as `L1NormPruner`.
    """

    p = 2

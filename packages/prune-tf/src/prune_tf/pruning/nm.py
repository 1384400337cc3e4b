"""Single weights, n of every m kept, as sparse tensor cores want them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from prune_core.errors import ConfigError
from prune_tf.pruning.pruner import MATRIX_TYPES, ConfigList, Pruner
from prune_tf.pruning.rows import keep_in_rows
from prune_tf.pruning.targets import Target

__all__ = ["NMPruner"]

Array = np.ndarray[Any, Any]


class NMPruner(Pruner):
    """Keeps the n largest of every m weights along the input channels, by absolute value.

    Mishra et al., Accelerating Sparse Deep Neural Networks, https://arxiv.org/abs/2104.08378

    Args:
        model: The model, masked in place.
        config_list: The rules; the only ratio possible is `1 − n/m`.
        n: How many weights of a group are kept.
        m: How many weights a group has.

    Example:
        >>> import keras
        >>> from prune_tf import NMPruner
        >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(2, name="fc")])
        >>> pruner = NMPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}], n=2, m=4)
        >>> model, masks = pruner.compress()
        >>> masks["fc"]["kernel"].T.reshape(2, 2, 4).sum(-1).tolist()
        [[2, 2], [2, 2]]
    """

    default_types = MATRIX_TYPES
    supported_types = MATRIX_TYPES
    per_channel = False

    def __init__(self, model: keras.Model, config_list: ConfigList, n: int = 2, m: int = 4) -> None:
        self.n, self.m = n, m
        super().__init__(model, config_list)

    def validate(self) -> None:
        """Check n, m, the ratio asked for, and that every weight can be grouped."""
        if not 0 < self.n < self.m:
            raise ConfigError(f"n is {self.n} and m is {self.m}; n of m means 0 < n < m.")
        possible = 1 - self.n / self.m
        for target in self.targets:
            asked, shape = target.config["sparsity"], target.shape
            if abs(asked - possible) > 1e-6:
                raise ConfigError(
                    f"{target.name!r} is to lose {asked} of its weights, and keeping {self.n} of "
                    f"every {self.m} prunes {possible}. Write that as its sparsity, or choose "
                    "another n and m."
                )
            if len(shape) < 2 or shape[self._input_axis(target)] % self.m:
                raise ConfigError(
                    f"The weight of {target.name!r} has the shape {shape} (output channels "
                    f"first); its input channels cannot be cut into groups of {self.m}. Exclude it."
                )

    def scores(self) -> dict[str, Array]:
        """Return absolute values."""
        return {target.name: np.abs(target.weight) for target in self.targets}

    def allocate(
        self,
        scores: Mapping[str, Array],
        alive: Mapping[str, Array],
        ratio: Callable[[Target], float],
    ) -> dict[str, Array]:
        """Compare within groups; on the way to the final ratio, prune fewer of each.

        Args:
            scores: The scores of each target.
            alive: Which of them may still be pruned.
            ratio: The share that goes.
        """
        masks = {}
        for target in self.targets:
            axis = self._input_axis(target)
            ranked = np.where(alive[target.name], scores[target.name], -1.0)
            last = np.moveaxis(ranked, axis, -1)
            groups = last.reshape(*last.shape[:-1], -1, self.m)
            # Rounding: 1 − n/m is not always a binary fraction.
            kept = keep_in_rows(groups, round(ratio(target) * self.m))
            masks[target.name] = np.moveaxis(kept.reshape(last.shape), -1, axis)
        return masks

    @staticmethod
    def _input_axis(target: Target) -> int:
        return 1 - target.axis

"""Single weights by their absolute value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.amount import number_to_prune
from prune_core.errors import ConfigError
from prune_tf.pruning.blocks import join_blocks, split_blocks
from prune_tf.pruning.pruner import WEIGHTED_TYPES, ConfigList, Pruner
from prune_tf.pruning.rows import keep_in_rows
from prune_tf.pruning.targets import Target

__all__ = ["LevelPruner"]

Array = np.ndarray[Any, Any]


class LevelPruner(Pruner):
    """Prunes the single weights that are smallest in absolute value.

    `score = |w|`, one for each weight of any layer that has a weight.

    Han et al., Learning both Weights and Connections for Efficient Neural Networks,
    https://arxiv.org/abs/1506.02626

    Args:
        model: The model, masked in place.
        config_list: The rules.
        mode: `"normal"` ranks the weights of each layer, `"global"` those of all layers of an
            entry together, and `"balance"` those of each block, so that all blocks lose equally.
        balance_gran: For `"balance"`, the shape of a block, matched to the last axes of a weight
            in torch's order (output channels, input channels, space).

    Example:
        >>> import keras
        >>> from prune_tf import LevelPruner
        >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, name="fc")])
        >>> pruner = LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}])
        >>> model, masks = pruner.compress()
        >>> int(masks["fc"]["kernel"].sum())
        4
    """

    default_types = WEIGHTED_TYPES
    supported_types = ()
    modes: ClassVar[tuple[str, ...]] = ("normal", "global", "balance")
    per_channel = False

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        mode: str = "normal",
        balance_gran: Sequence[int] | None = None,
    ) -> None:
        self.balance_gran = balance_gran
        super().__init__(model, config_list, mode)

    def validate(self) -> None:
        """Check that blocks are given where they are needed, and fit."""
        if self.mode == "balance":
            if not self.balance_gran:
                raise ConfigError(
                    "mode is 'balance' and balance_gran is missing; give the shape of a block, "
                    "such as balance_gran=[1, 4]."
                )
            if not isinstance(self.balance_gran, Sequence):
                raise ConfigError(
                    f"balance_gran is {self.balance_gran!r}; it must be a list, such as [1, 4]."
                )
            for target in self.targets:
                split_blocks(target.name, target.weight, self._block(target))

    def scores(self) -> dict[str, Array]:
        """Return absolute values."""
        return {target.name: np.abs(target.weight) for target in self.targets}

    def allocate(
        self,
        scores: Mapping[str, Array],
        alive: Mapping[str, Array],
        ratio: Callable[[Target], float],
    ) -> dict[str, Array]:
        """Rank by layer, by entry, or by block.

        Args:
            scores: The scores of each target.
            alive: Which of them may still be pruned.
            ratio: The share that goes.
        """
        if self.mode != "balance":
            return super().allocate(scores, alive, ratio)
        masks = {}
        for target in self.targets:
            block = self._block(target)
            ranked = np.where(alive[target.name], scores[target.name], -1.0)
            rows = split_blocks(target.name, ranked, block)
            kept = keep_in_rows(rows, number_to_prune(ratio(target), rows.shape[-1]))
            whole = join_blocks(kept, ranked.shape, block)
            masks[target.name] = whole & alive[target.name]
        return masks

    def _block(self, target: Target) -> list[int]:
        sizes = list(self.balance_gran or ())
        return [1] * (len(target.shape) - len(sizes)) + sizes

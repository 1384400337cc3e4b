"""Rectangular blocks of weights by their norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from prune_tf.pruning.blocks import join_blocks, split_blocks
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.pruning.targets import Target

__all__ = ["BlockPruner"]

Array = np.ndarray[Any, Any]


class BlockPruner(Pruner):
    """Prunes the blocks of weights that are smallest in norm, as block-sparse kernels want it.

    `score[b] = ‖w[b]‖_p` for each block b of a weight in torch's order of axes.

    Gray et al., GPU Kernels for Block-Sparse Weights,
    https://cdn.openai.com/blocksparse/blocksparsepaper.pdf

    Args:
        model: The model, masked in place.
        config_list: The rules.
        block_sparse_size: Sizes of a block along output and input channels; along further axes
            a block takes all.
        p: The norm.
        mode: `"normal"` ranks the blocks of each layer, `"global"` those of an entry together.

    Example:
        >>> import keras
        >>> from prune_tf import BlockPruner
        >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, name="fc")])
        >>> pruner = BlockPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}], [2, 4])
        >>> model, masks = pruner.compress()
        >>> int(masks["fc"]["kernel"].sum())
        16
    """

    default_types = ("Dense", "Conv1D", "Conv2D", "Conv3D")
    supported_types = default_types
    modes: ClassVar[tuple[str, ...]] = ("normal", "global")
    per_channel = False

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        block_sparse_size: Sequence[int] = (1, 4),
        p: float = 2.0,
        mode: str = "normal",
    ) -> None:
        self.block_sparse_size, self.p = list(block_sparse_size), float(p)
        super().__init__(model, config_list, mode)

    def validate(self) -> None:
        """Check that every weight can be cut."""
        for target in self.targets:
            split_blocks(target.name, target.weight, self._sizes(target))

    def scores(self) -> dict[str, Array]:
        """Return the norm of each block."""
        return {
            target.name: np.linalg.norm(
                split_blocks(target.name, target.weight, self._sizes(target)), self.p, axis=-1
            )
            for target in self.targets
        }

    def alive(self, target: Target) -> Array:
        """Return which blocks have anything left.

        Args:
            target: The variable that is pruned.
        """
        blocks = split_blocks(target.name, target.alive, self._sizes(target))
        return np.asarray(blocks.any(axis=-1))

    def _spread(self, target: Target, kept: Array) -> dict[str, Array]:
        sizes, shape = self._sizes(target), target.shape
        blocks = np.repeat(kept[..., None], int(np.prod(sizes)), axis=-1)
        return super()._spread(target, join_blocks(blocks, shape, sizes) & target.alive)

    def _sizes(self, target: Target) -> list[int]:
        return self.block_sparse_size + list(target.shape[len(self.block_sparse_size) :])

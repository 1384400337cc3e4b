"""Cutting an array into blocks, and putting it together again."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prune_core.errors import ConfigError

__all__ = ["join_blocks", "split_blocks"]

Array = np.ndarray[Any, Any]


def split_blocks(name: str, array: Array, sizes: Sequence[int]) -> Array:
    """Return the blocks, in the order of the grid, each flattened along the last axis.

    >>> split_blocks("fc", np.arange(8).reshape(2, 4), [1, 2]).tolist()
    [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    """
    whole = all(isinstance(size, int) and size >= 1 for size in sizes)
    fits = whole and len(sizes) == array.ndim
    if not fits or any(n % s for n, s in zip(array.shape, sizes, strict=True)):
        raise ConfigError(
            f"The weight of {name!r} has the shape {array.shape} (output channels first), which "
            f"cannot be cut into blocks of {list(sizes)}. Choose sizes that divide it, or exclude "
            "the layer."
        )
    split = array.reshape([x for n, s in zip(array.shape, sizes, strict=True) for x in (n // s, s)])
    grid = split.transpose([*range(0, split.ndim, 2), *range(1, split.ndim, 2)])
    return grid.reshape(*grid.shape[: array.ndim], -1)


def join_blocks(blocks: Array, shape: Sequence[int], sizes: Sequence[int]) -> Array:
    """Undo `split_blocks`."""
    grid = blocks.reshape(*blocks.shape[:-1], *sizes)
    order = [x for i in range(len(sizes)) for x in (i, len(sizes) + i)]
    return grid.transpose(order).reshape(*shape)

"""Arrays seen as one row for each output channel, or for each group."""

from typing import Any

import numpy as np

__all__ = ["keep_in_rows", "rows_of"]

Array = np.ndarray[Any, Any]


def rows_of(array: Array, axis: int) -> Array:
    """Return one row for each place along an axis.

    >>> rows_of(np.arange(6).reshape(2, 3), 1).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def keep_in_rows(scores: Array, count: int) -> Array:
    """Return a mask without the `count` smallest along the last axis; of equal ones the first go.

    >>> keep_in_rows(np.array([[1.0, 3.0, 2.0, 1.0]]), 2)
    array([[False,  True,  True, False]])
    """
    mask = np.ones(scores.shape, bool)
    order = np.argsort(scores, axis=-1, kind="stable")
    np.put_along_axis(mask, order[..., :count], False, axis=-1)
    return mask

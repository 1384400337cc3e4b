"""Whatever users have their data in, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from prune_core.errors import ConfigError

__all__ = ["Data", "batches_of"]

Data = Any


def batches_of(data: Data, limit: int | None, batch_size: int = 32) -> Iterator[tuple[Any, ...]]:
    """Yield `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    Args:
        data: An array, a tuple of arrays as for `fit(x, y)`, or anything that yields batches: a
            `tf.data.Dataset`, a `PyDataset`, a generator, a list.
        limit: Stop after this many batches, or None.
        batch_size: For arrays, how many samples a batch has.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"batches is {limit}; it must be at least 1.")
    if isinstance(data, np.ndarray):
        data = (data,)
    if isinstance(data, tuple) and all(isinstance(part, np.ndarray) for part in data):
        found = _cut(data, batch_size)
    elif isinstance(data, Iterable):
        found = (batch if isinstance(batch, tuple) else (batch,) for batch in data)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a PyDataset
        found = (data[i] for i in range(len(data)))
    else:
        raise ConfigError(
            f"data is a {type(data).__name__}; it must be an array, a tuple (x, y) of arrays, or "
            "something that yields batches, such as a tf.data.Dataset."
        )
    return islice(found, limit)


def _cut(arrays: tuple[Any, ...], size: int) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(arrays[0]), size):
        yield tuple(array[start : start + size] for array in arrays)

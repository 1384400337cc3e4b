"""Whatever users have their data in, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import keras

from prune_core.errors import ConfigError

__all__ = ["Data", "batches_of"]

Data = Any


def batches_of(data: Data, limit: int | None, batch_size: int = 32) -> Iterator[tuple[Any, ...]]:
    """Yield `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    Args:
        data: An array, a tuple of arrays as for `fit(x, y)`, where x may be a list or dict of
            arrays, or anything that yields batches: a `tf.data.Dataset`, a `PyDataset`, a
            generator, a list.
        limit: Stop after this many batches, or None.
        batch_size: For arrays, how many samples a batch has.
    """
    if limit is not None and not (isinstance(limit, int) and limit >= 1):
        raise ConfigError(
            f"batches is {limit!r}; it must be a whole number of at least 1, or None."
        )
    if _is_array(data) or isinstance(data, Mapping):
        data = (data,)
    if isinstance(data, tuple) and all(_holds_arrays(part) for part in data):
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


def _is_array(data: Any) -> bool:
    return hasattr(data, "shape") and hasattr(data, "__getitem__")


def _holds_arrays(part: Any) -> bool:
    """Whether it is all samples of something; a tuple is one batch of several."""
    leaves = keras.tree.flatten(part)
    return not isinstance(part, tuple) and bool(leaves) and all(_is_array(x) for x in leaves)


def _cut(arrays: tuple[Any, ...], size: int) -> Iterator[tuple[Any, ...]]:
    lengths = [len(array) for array in keras.tree.flatten(arrays)]
    if len(set(lengths)) > 1:
        raise ConfigError(
            f"data has arrays of {' and '.join(map(str, lengths))} samples; each must have as many "
            "as the others."
        )

    def part(start: int) -> Any:
        return keras.tree.map_structure(lambda array: array[start : start + size], arrays)

    return (part(start) for start in range(0, lengths[0], size))

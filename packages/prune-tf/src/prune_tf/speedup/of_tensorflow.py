"""Functions of TensorFlow in a layer's own Python, as the operations of Keras that they are.

TensorFlow refuses symbolic tensors of Keras. What a layer does between two of these functions is
known nevertheless, as long as each of them is one of Keras' own operations by another name:

    tf.gather(scores, places, batch_dims=3)    →    ops.take_along_axis(scores, places, 3)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

__all__ = ["spoken_by_keras"]


@contextmanager
def spoken_by_keras() -> Iterator[None]:
    """Have TensorFlow's functions take symbolic tensors, as far as Keras has the same."""
    tensorflow: Any = sys.modules.get("tensorflow")
    if tensorflow is None or keras.backend.backend() != "tensorflow":
        yield
        return
    gather = tensorflow.gather

    def told(
        params: Any,
        indices: Any,
        validate_indices: Any = None,
        axis: int | None = None,
        batch_dims: int = 0,
        name: str | None = None,
    ) -> Any:
        symbolic = any(isinstance(each, keras.KerasTensor) for each in (params, indices))
        if not symbolic:
            return gather(params, indices, validate_indices, axis, batch_dims, name)
        place = batch_dims if axis is None else axis
        if batch_dims == 0:
            return ops.take(params, indices, axis=place)
        if batch_dims == place and len(params.shape) == len(indices.shape) == place + 1:
            return ops.take_along_axis(params, indices, axis=place)
        raise TypeError("tf.gather is called in a way for which keras.ops has no word")

    tensorflow.gather = told
    try:
        yield
    finally:
        tensorflow.gather = gather

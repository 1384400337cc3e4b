"""Variables and tensors of any backend as arrays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

__all__ = ["array_of"]


def array_of(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a variable or a tensor as an array.

    `keras.ops.convert_to_numpy` asks tensors of TensorFlow in a way of which numpy 2 warns.
    """
    value = tensor.value if isinstance(tensor, keras.Variable) else tensor
    if keras.backend.backend() == "tensorflow" and hasattr(value, "numpy"):
        return np.asarray(value.numpy())
    return np.asarray(keras.ops.convert_to_numpy(value))

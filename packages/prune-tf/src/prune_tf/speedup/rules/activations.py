"""What activation functions do to constants."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

__all__ = ["activated", "is_elementwise"]

Array = np.ndarray[Any, Any]

ELEMENTWISE = frozenset(
    {
        "celu",
        "elu",
        "exponential",
        "gelu",
        "hard_shrink",
        "hard_sigmoid",
        "hard_silu",
        "hard_swish",
        "hard_tanh",
        "leaky_relu",
        "linear",
        "log_sigmoid",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "soft_shrink",
        "softplus",
        "softsign",
        "sparse_plus",
        "squareplus",
        "swish",
        "tanh",
        "tanh_shrink",
        "threshold",
    }
)


def is_elementwise(activation: Any) -> bool:
    """Whether a function is known to treat each value by itself."""
    if activation is None:
        return True
    # A user's function of the same name may do anything.
    package = str(getattr(activation, "__module__", "")).partition(".")[0]
    known = package in ("keras", "tensorflow", "torch")
    return known and getattr(activation, "__name__", "") in ELEMENTWISE


def activated(activation: Any, constants: Array) -> Array:
    """Return the constants after an elementwise activation."""
    if activation is None:
        return constants
    known = ~np.isnan(constants)
    result = constants.copy()
    if known.any():
        values = keras.ops.convert_to_tensor(constants[known].astype("float32"))
        result[known] = keras.ops.convert_to_numpy(activation(values))
    return result

"""Whether a LiteRT file in fewer bits holds the weights of one in full precision.

What it computes says little: rounding moves outputs, and so does a mistake in some weights. But
both files come from the same graph, so that each weight has its counterpart, and rounding moves
none by more than half a step:

    full      0.503   -0.251   0.118      step 0.01, and half of it 0.005
    int8          50      -25      12
    times step   0.50   -0.25    0.12     all within half a step
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prune_core.errors import PruneError

__all__ = ["check_weights"]

Array = np.ndarray[Any, Any]
HALF_A_STEP = 1.01
"""In halves of a step; what is more than one is for how numbers are divided by the step."""


@dataclass(frozen=True, slots=True)
class _Constant:
    """A tensor that a file holds, as real numbers, and how far rounding may have moved each."""

    name: str
    value: Array
    half_step: Array


def check_weights(full: Path, fewer: Path, name: str) -> None:
    """Refuse a file whose weights are not those of another one, rounded.

    Args:
        full: A LiteRT file in full precision.
        fewer: The same model in fewer bits.
        name: What the model is called.

    Raises:
        PruneError: Naming the weight that differs most.
    """
    there = _constants(fewer)
    for wanted in _constants(full):
        # The converter numbers tensors of one name in either order.
        rounded = [
            each
            for each in there
            if each.value.shape == wanted.value.shape and _stem(each.name) == _stem(wanted.name)
        ]
        apart = min((_apart(wanted, each) for each in rounded), default=0.0)
        if not apart <= HALF_A_STEP:
            raise PruneError(
                f"The litert file of {name!r} in fewer bits has other weights than the one in full "
                f"precision: {wanted.name!r} is off by {apart / 2:.1f} steps of rounding, and half "
                "a step is what rounding does. Nothing was written."
            )


def _apart(wanted: _Constant, rounded: _Constant) -> float:
    """By how many halves of a step numbers differ, at most."""
    gap = np.abs(wanted.value - rounded.value)
    return float(np.nan_to_num(gap / rounded.half_step, nan=np.inf).max(initial=0.0))


def _constants(path: Path) -> list[_Constant]:
    """Return the real numbers that a file holds."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own reader will go to another package.
        reader = tf.lite.Interpreter(model_path=str(path))
    found = []
    for details in reader.get_tensor_details():
        try:
            value = reader.get_tensor(details["index"])
        except ValueError:  # what is computed has no value before the model runs
            continue
        scales = details["quantization_parameters"]["scales"]
        if value.dtype.kind == "f" or len(scales):
            found.append(_constant(details, value, scales))
    return found


def _constant(details: Any, value: Array, scales: Array) -> _Constant:
    wide = value.astype(np.float64)
    if not len(scales):
        # Half a unit in the last place, and a little for numbers next to zero.
        half = np.abs(wide) * float(np.finfo(value.dtype).eps) / 2 + 1e-7
        return _Constant(details["name"], wide, half)
    how = details["quantization_parameters"]
    lying = [1] * value.ndim
    if len(scales) > 1:
        lying[how["quantized_dimension"]] = -1
    steps = scales.astype(np.float64).reshape(lying)
    wide = (wide - how["zero_points"].reshape(lying)) * steps
    half = np.broadcast_to(steps / 2, wide.shape) + 1e-12
    return _Constant(details["name"], wide, half)


def _stem(name: str) -> str:
    return re.sub(r"\d+$", "", name)

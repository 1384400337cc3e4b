"""Comparing what both models put out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from prune_core.errors import SpeedupError

__all__ = ["constant_places", "difference", "tolerance_of"]

Array = np.ndarray[Any, Any]
TOLERANCES = {"float64": 1e-6, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
"""How far rounding moves the outputs of a deep network, by the type that it computes in."""


def tolerance_of(model: keras.Model) -> float:
    """Return the largest difference that rounding explains, where a model computes as it does."""
    return max(
        (TOLERANCES.get(layer.compute_dtype, 1e-5) for layer in model._flatten_layers()),
        default=1e-5,
    )


def difference(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """Return the largest difference of outputs, relative to the largest output."""
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape:
            raise SpeedupError(f"The small model puts out {b.shape} instead of {a.shape}.")
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        if not np.isfinite(a).all():
            raise SpeedupError(
                "The masked model puts out NaN or infinity; nothing can be compared."
            )
        if not np.isfinite(b).all():
            return float("inf")
        scale = float(np.abs(a).max(initial=0.0)) or 1.0
        worst = max(worst, float(np.abs(a - b).max(initial=0.0)) / scale)
    return worst


def constant_places(outputs: Sequence[Array], inputs: Any) -> tuple[int, ...]:
    """Return the places of outputs that are the same for every sample, though samples differ."""
    given = [np.asarray(keras.ops.convert_to_numpy(x)) for x in keras.tree.flatten(inputs)]
    if not any(_differs(each) for each in given):
        return ()
    return tuple(
        at for at, each in enumerate(outputs) if each.ndim and len(each) > 1 and not _differs(each)
    )


def _differs(batch: Array) -> bool:
    return batch.ndim > 0 and len(batch) > 1 and bool((batch != batch[:1]).any())

"""Comparing what both models put out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from prune_core.errors import SpeedupError
from prune_tf.arrays import array_of

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


def constant_places(
    run: Callable[[Any], Sequence[Array]], inputs: Any, outputs: Sequence[Array]
) -> tuple[int, ...]:
    """Return the places of outputs that stay the same whatever comes in.

    Outputs that are whole numbers may be alike for a few samples, so that others are tried.

    Args:
        run: Runs the model.
        inputs: What it was run on.
        outputs: What came out.
    """
    places = [at for at, each in enumerate(outputs) if each.ndim and _is_alike(each)]
    given = [array_of(each) for each in keras.tree.flatten(inputs)] if places else []
    # Of words that were made up, a model may know none, so that they are all the same to it.
    if all(_is_alike(each) for each in given) or any(each.dtype.kind in "OSU" for each in given):
        return ()
    for factor in _FACTORS:
        found = run(keras.tree.map_structure(lambda x: _scaled(array_of(x), factor), inputs))  # noqa: B023
        places = [at for at in places if np.array_equal(found[at], outputs[at])]
    return tuple(places)


_FACTORS = (-1.0, 1e2 + 1, -1e4 - 1)


def _is_alike(batch: Array) -> bool:
    return batch.ndim > 0 and len(batch) > 1 and bool((batch == batch[:1]).all())


def _scaled(values: Array, factor: float) -> Array:
    if not values.ndim:
        return values
    if values.dtype.kind != "f":
        largest = values.max(initial=0)
        return np.roll(values ^ True if values.dtype == bool else largest - values, int(factor), -1)
    with np.errstate(all="ignore"):
        return np.asarray(values * factor, values.dtype)

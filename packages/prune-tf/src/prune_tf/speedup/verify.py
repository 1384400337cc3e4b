"""Running both models on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from prune_core.errors import SpeedupError

__all__ = ["difference", "random_inputs"]

# Where a model takes images of any size, one that survives five halvings.
ANY_SIZE = 64


def random_inputs(model: keras.Model, batch: int = 2) -> Any:
    """Return inputs of the shapes and types that a model asks for."""
    rng = np.random.default_rng(0)

    def one(tensor: Any) -> Any:
        shape = [batch, *(size or ANY_SIZE for size in tensor.shape[1:])]
        if tensor.dtype == "string":
            raise SpeedupError(
                f"The input {tensor.name!r} takes strings, of which random ones mean nothing; pass "
                "example_inputs=... to compare on, or verify=False."
            )
        if "int" in tensor.dtype or tensor.dtype == "bool":
            return rng.integers(0, 2, shape).astype(tensor.dtype)
        return rng.normal(size=shape).astype(tensor.dtype)

    if isinstance(model, keras.Sequential):
        return one(model.inputs[0])
    return keras.tree.map_structure(one, model.input)


def difference(first: keras.Model, second: keras.Model, inputs: Any) -> float:
    """Return the largest difference of outputs, relative to the largest output."""
    worst = 0.0
    expected = _run(first, inputs)
    outputs = [expected, keras.tree.flatten(second(inputs, training=False))]
    for a, b in zip(*outputs, strict=True):
        a, b = (_float64(x) for x in (a, b))
        if a.shape != b.shape:
            raise SpeedupError(f"The small model puts out {b.shape} instead of {a.shape}.")
        if not np.isfinite(a).all():
            raise SpeedupError("The masked model puts out NaN or infinity; nothing can be proved.")
        if not np.isfinite(b).all():
            return float("inf")
        scale = float(np.abs(a).max(initial=0.0)) or 1.0
        worst = max(worst, float(np.abs(a - b).max(initial=0.0)) / scale)
    return worst


def _run(model: keras.Model, inputs: Any) -> list[Any]:
    try:
        return list(keras.tree.flatten(model(inputs, training=False)))
    except (TypeError, ValueError) as error:
        if isinstance(inputs, Mapping) and any(isinstance(v, Mapping) for v in inputs.values()):
            raise SpeedupError(
                "example_inputs looks like masks; write shrink(model, masks=...)."
            ) from error
        given = keras.tree.map_structure(lambda x: tuple(getattr(x, "shape", ())), inputs)
        wanted = ", ".join(str(tuple(tensor.shape)) for tensor in model.inputs)
        raise SpeedupError(
            f"{model.name!r} cannot be run on example_inputs of the shape {given}; it takes "
            f"{wanted}. Leave them out to compare on random numbers."
        ) from error


def _float64(tensor: Any) -> np.ndarray[Any, Any]:
    # By way of float32: numpy has no bfloat16.
    values = keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))
    return np.asarray(values, np.float64)

"""Running both models on the same inputs."""

from __future__ import annotations

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
        if "int" in tensor.dtype or tensor.dtype == "bool":
            return rng.integers(0, 2, shape).astype(tensor.dtype)
        return rng.normal(size=shape).astype(tensor.dtype)

    if isinstance(model, keras.Sequential):
        return one(model.inputs[0])
    return keras.tree.map_structure(one, model.input)


def difference(first: keras.Model, second: keras.Model, inputs: Any) -> float:
    """Return the largest difference of outputs, relative to the largest output."""
    worst = 0.0
    outputs = [keras.tree.flatten(model(inputs, training=False)) for model in (first, second)]
    for a, b in zip(*outputs, strict=True):
        a, b = (np.asarray(keras.ops.cast(x, "float32"), np.float64) for x in (a, b))
        if a.shape != b.shape:
            raise SpeedupError(f"The small model puts out {b.shape} instead of {a.shape}.")
        scale = float(np.abs(a).max(initial=0.0)) or 1.0
        worst = max(worst, float(np.abs(a - b).max(initial=0.0)) / scale)
        if not np.isfinite(worst):
            raise SpeedupError("The masked model puts out NaN or infinity; nothing can be proved.")
    return worst

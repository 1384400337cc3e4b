"""Gradients of a loss, which Keras itself leaves to its backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from prune_core.errors import PruneError

__all__ = ["gradients"]


def gradients(
    model: keras.Model,
    variables: Sequence[Any],
    batch: tuple[Any, ...],
    loss: Callable[[Any, Any], Any] | None,
) -> list[np.ndarray[Any, Any] | None]:
    """Return the gradient for each variable, as arrays, at inference (no dropout).

    Args:
        model: The model.
        variables: Some of its variables.
        batch: `(x, y)` or `(x, y, sample_weight)`.
        loss: Takes targets and predictions, or None for the compiled loss.
    """
    if keras.backend.backend() != "tensorflow":
        raise PruneError(
            f"Scores by gradients need Keras on TensorFlow; this is Keras on "
            f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow, or choose an algorithm "
            "that looks at weights or activations."
        )
    import tensorflow as tf

    x, y, *weight = batch
    with tf.GradientTape() as tape:
        predictions = model(x, training=False)
        if loss is not None:
            value = tf.reduce_mean(loss(y, predictions))
        else:
            value = model.compute_loss(
                x=x, y=y, y_pred=predictions, sample_weight=weight[0] if weight else None
            )
    found = tape.gradient(value, [variable.value for variable in variables])
    return [None if g is None else np.asarray(tf.convert_to_tensor(g), np.float32) for g in found]

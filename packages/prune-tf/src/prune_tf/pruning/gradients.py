"""Gradients of a loss, which Keras itself leaves to its backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from prune_core.errors import PruneError

__all__ = ["gradients"]

Array = np.ndarray[Any, Any]


def gradients(
    model: keras.Model,
    variables: Sequence[Any],
    batch: tuple[Any, ...],
    loss: Callable[[Any, Any], Any] | None,
) -> list[Array | None]:
    """Return the gradient for each variable, as arrays, at inference (no dropout).

    Args:
        model: The model.
        variables: Some of its variables.
        batch: `(x, y)` or `(x, y, sample_weight)`.
        loss: Takes targets and predictions, or None for the compiled loss.
    """
    backend = keras.backend.backend()
    if backend not in _BY_BACKEND:
        raise PruneError(
            f"Scores by gradients need Keras on {', '.join(_BY_BACKEND)}; this is Keras on "
            f"{backend}. Set KERAS_BACKEND, or choose an algorithm that looks at weights or "
            "activations."
        )
    return _BY_BACKEND[backend](variables, lambda: _value(model, batch, loss))


def _value(
    model: keras.Model, batch: tuple[Any, ...], loss: Callable[[Any, Any], Any] | None
) -> Any:
    x, y, *weight = batch
    predictions = model(x, training=False)
    if loss is not None:
        return keras.ops.mean(loss(y, predictions))
    return model.compute_loss(
        x=x, y=y, y_pred=predictions, sample_weight=weight[0] if weight else None
    )


def _with_tensorflow(variables: Sequence[Any], value: Callable[[], Any]) -> list[Array | None]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        result = value()
    found = tape.gradient(result, [variable.value for variable in variables])
    return [None if g is None else np.asarray(tf.convert_to_tensor(g), np.float32) for g in found]


def _with_torch(variables: Sequence[Any], value: Callable[[], Any]) -> list[Array | None]:
    import torch

    given = [variable.value for variable in variables]
    found = torch.autograd.grad(value(), given, allow_unused=True)
    return [None if g is None else g.detach().float().cpu().numpy() for g in found]


def _with_jax(variables: Sequence[Any], value: Callable[[], Any]) -> list[Array | None]:
    import jax

    def of(given: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=[*zip(variables, given, strict=True)]):
            return value()

    found = jax.grad(of)([variable.value for variable in variables])
    return [np.asarray(g, np.float32) for g in found]


_BY_BACKEND = {"tensorflow": _with_tensorflow, "torch": _with_torch, "jax": _with_jax}

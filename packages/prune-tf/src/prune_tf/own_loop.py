"""What a training loop of the user's own says of how far it is, and where it may say so."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

from prune_core.errors import ConfigError, shown
from prune_tf.arrays import array_of

__all__ = ["check_outside", "number_of"]


def number_of(what: str, given: Any) -> int:
    """Return the number of a step or an epoch, which may be a variable of an optimizer.

    Args:
        what: What it is the number of, as the message says it.
        given: What the loop says.

    Raises:
        ConfigError: It is no whole number of at least 0.
    """
    value = array_of(given) if hasattr(given, "shape") else np.asarray(given)
    if value.ndim or value.dtype.kind not in "iu" or value < 0:
        raise ConfigError(f"{what} is {shown(given)}; it must be a whole number of at least 0.")
    return int(value)


def check_outside(call: str) -> None:
    """Refuse a call that a compiler looks at: it would run once, and then never again.

    Args:
        call: The call, as the message shows it.

    Raises:
        ConfigError: The call is inside of `jax.jit` or `tf.function`.
    """
    compiler = _compiler()
    if compiler:
        raise ConfigError(
            f"{call} is called inside of {compiler}, which runs Python once and the compiled step "
            "from then on. Call it after the step, outside; where it returns True, there are "
            "other masks."
        )


def _compiler() -> str:
    backend = keras.backend.backend()
    if backend == "jax":
        jax: Any = sys.modules["jax"]
        return "jax.jit" if isinstance(jax.numpy.zeros(()), jax.core.Tracer) else ""
    if backend == "tensorflow":
        tensorflow: Any = sys.modules["tensorflow"]
        return "" if tensorflow.executing_eagerly() else "tf.function"
    return ""

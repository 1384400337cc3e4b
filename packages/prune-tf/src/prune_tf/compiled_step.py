"""What cannot be done inside of a step that is being compiled."""

from __future__ import annotations

import sys
from typing import Any

import keras

from prune_core.errors import ConfigError

__all__ = ["check_outside"]


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

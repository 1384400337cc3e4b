"""Copies of functional and Sequential models, layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from prune_core.errors import PruneWarning, SpeedupError
from prune_tf.speedup.graph import is_graph

__all__ = ["Copies", "compile_alike", "copy_layer", "copy_model"]

# `{id of an operation: (the operation, its copy)}`
Copies = dict[int, tuple[Any, Any]]


def copy_layer(op: Any, edit: Callable[[dict[str, Any]], None] | None = None) -> Any:
    """Return a new layer or operation, made from its config.

    Args:
        op: The layer or operation.
        edit: Changes the config first.

    Raises:
        SpeedupError: When it cannot be made.
    """
    if type(op) is keras.layers.Lambda:
        # A config has the bytecode of its function, without the globals that this refers to.
        return keras.layers.Lambda(
            op.function,
            output_shape=op._output_shape,
            mask=op.mask,
            arguments=op.arguments,
            name=op.name,
            dtype=op.dtype_policy,
        )
    try:
        config = op.get_config()
        if edit is not None:
            edit(config)
        return type(op).from_config(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise SpeedupError(
            f"{op.name!r}, a {type(op).__name__}, cannot be copied from its config: {error}"
        ) from error


def copy_model(
    model: keras.Model,
    copy_op: Callable[[Any], Any] = copy_layer,
    copies: Copies | None = None,
) -> keras.Model:
    """Return a copy of a model, with weights of its own and not compiled.

    Args:
        model: A functional or Sequential model.
        copy_op: Makes the copy of a layer or operation that is not such a model itself.
        copies: Gets what was copied.

    Raises:
        SpeedupError: When a layer cannot be copied.
    """
    done: Copies = {} if copies is None else copies

    def copy(op: Any) -> Any:
        if id(op) not in done:
            done[id(op)] = (op, copy_model(op, copy_op, done) if is_graph(op) else copy_op(op))
        return done[id(op)][1]

    with _not_compiled(model):
        return keras.models.clone_model(model, clone_function=copy)


def compile_alike(copy: keras.Model, model: keras.Model) -> None:
    """Compile a copy as the model is, with an optimizer of its own, or warn that it is not."""
    if not model.compiled:
        return
    try:
        copy.compile_from_config(model.get_compile_config())
    except (TypeError, ValueError) as error:
        warnings.warn(
            f"The copy of {model.name!r} is not compiled; call compile() on it before you train "
            f"it on. Something that the model was compiled with cannot be copied: {error}",
            PruneWarning,
            stacklevel=3,
        )


@contextmanager
def _not_compiled(model: keras.Model) -> Iterator[None]:
    """Have clone_model leave the copy as it is.

    It would compile it from a config, which cannot be done for a loss or a metric that is a
    function of the user's own.
    """
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled

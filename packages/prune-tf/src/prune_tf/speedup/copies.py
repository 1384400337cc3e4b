"""Copies of functional and Sequential models, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import FunctionType
from typing import Any

import keras
import numpy as np

from prune_core.errors import SpeedupError, warn
from prune_tf.arrays import array_of
from prune_tf.speedup.graph import is_graph
from prune_tf.speedup.shaping import ShapeCarrier, own_classes, plain_class
from prune_tf.speedup.twin import twin

__all__ = ["Copies", "Pairs", "carry_state", "copy_layer", "copy_model", "pairs_of"]

# `{id of an operation: (the operation, its copy)}`
Copies = dict[int, tuple[Any, Any]]
# Each layer with its copy, also those inside of other layers.
Pairs = list[tuple[Any, Any]]


def copy_layer(op: Any, edit: Callable[[dict[str, Any]], None] | None = None) -> Any:
    """Return a new layer or operation, made from its config, or part by part.

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
        if _is_of_keras(type(op).from_config):
            # A config has the bytecode of a lambda, and of a function of one's own only the name.
            own = {key: getattr(op, key, None) for key in config}
            config |= {
                key: each
                for key, each in own.items()
                if isinstance(each, FunctionType) and not _is_of_keras(each)
            }
        if edit is not None:
            edit(config)
        # What was cut to shape before says by name which class builds it.
        known = own_classes(op) if isinstance(op, ShapeCarrier) else {}
        with keras.saving.custom_object_scope(known):
            return type(op).from_config(config)
    except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
        if _has_no_graph(op):
            warn(
                f"{op.name!r} was copied part by part, because the config of its class, "
                f"{type(op).__name__}, does not make it again. The small model runs and trains, "
                "but a .keras file of it could not be loaded, and nor could one of the model "
                "itself: mend get_config(), or use save_weights() and other formats."
            )
            return twin(op)
        raise SpeedupError(
            f"{op.name!r}, a {type(op).__name__}, cannot be copied from its config: {error}"
        ) from error


def _has_no_graph(op: Any) -> bool:
    """Whether a layer consists of attributes alone, and of no graph of symbolic tensors."""
    if not isinstance(op, keras.layers.Layer) or not op.built:
        return False
    return not any(isinstance(each, keras.Model) for each in op._flatten_layers())


def _is_of_keras(function: Any) -> bool:
    return str(function.__module__).partition(".")[0] == "keras"


def copy_model(
    model: keras.Model,
    copy_op: Callable[[Any], Any] = copy_layer,
    copies: Copies | None = None,
    inputs_of: Callable[[Any], list[Any] | None] = lambda model: None,
) -> keras.Model:
    """Return a copy of a model, with weights of its own and not compiled.

    Args:
        model: A functional or Sequential model.
        copy_op: Makes the copy of a layer or operation that is not such a model itself.
        copies: Gets what was copied.
        inputs_of: Returns the inputs of the copy of a model, where they are not as they were.

    Raises:
        SpeedupError: When a layer cannot be copied.
    """
    done: Copies = {} if copies is None else copies

    def copy(op: Any) -> Any:
        if id(op) not in done:
            done[id(op)] = (
                op,
                copy_model(op, copy_op, done, inputs_of) if is_graph(op) else copy_op(op),
            )
        return done[id(op)][1]

    with _not_compiled(model):
        return keras.models.clone_model(model, inputs_of(model), clone_function=copy)


def pairs_of(copies: Copies) -> Pairs:
    """Return each layer with its copy, whatever order the layers of a model are tracked in.

    Raises:
        SpeedupError: When a copy is not made as what it is a copy of, or has two layers for one.
    """
    found: dict[int, tuple[Any, Any]] = {}
    for old, new in copies.values():
        if not isinstance(old, keras.layers.Layer):
            continue
        inside = ([each] if is_graph(each) else _with_all_inside(each) for each in (old, new))
        before, after = inside
        if not is_graph(old) and [*map(plain_class, before)] != [*map(plain_class, after)]:
            raise SpeedupError(
                f"{old.name!r}, a {type(old).__name__}, cannot be copied: what its config makes "
                "has other layers inside than it has."
            )
        for pair in zip(before, after, strict=True):
            if found.setdefault(id(pair[0]), pair)[1] is not pair[1]:
                raise SpeedupError(
                    f"{pair[0].name!r} is used both inside another layer and elsewhere, and in a "
                    "copy it would be two layers. Use it in one way only."
                )
    return [*found.values()]


def _with_all_inside(layer: Any) -> list[Any]:
    return [*layer._flatten_layers()]


def carry_state(old: Any, new: Any) -> None:
    """Give a copy of a layer all state of its own: weights, statistics, vocabularies.

    Those are the steps in which Keras writes and reads a layer, so that a layer that has more to
    do then, as an adapted `Normalization` has, does it.
    """
    store: dict[str, Any] = {}
    old.save_own_variables(store)
    # Numbers of its own: on JAX two variables may share them, and training one takes them away.
    new.load_own_variables({name: np.array(array_of(value)) for name, value in store.items()})
    if hasattr(old, "save_assets"):
        with TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


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

"""What a model was trained with, carried over to the small one: loss, optimizer and its state."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import keras
import numpy as np

from prune_core.errors import warn
from prune_tf.arrays import array_of
from prune_tf.speedup.copies import Pairs

__all__ = ["compile_alike"]

Array = np.ndarray[Any, Any]
Cut = Callable[[Any, str, Array], Array]


def compile_alike(small: keras.Model, model: keras.Model, pairs: Pairs, cut: Cut) -> None:
    """Compile the small model as the model is, and have it train on where that stands.

    Args:
        small: The small model.
        model: The model.
        pairs: Each layer with its copy.
        cut: Takes a layer, the name of one of its variables and an array that is shaped as that,
            and returns what is left of the array.
    """
    if not model.compiled:
        return
    try:
        with keras.saving.custom_object_scope(_compiled_with(model)), warnings.catch_warnings():
            # It is not read from a file, and is said below where it cannot be copied.
            warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
            small.compile_from_config(model.get_compile_config())
    except (TypeError, ValueError) as error:
        warn(
            f"The small model of {model.name!r} is not compiled; call compile() on it before you "
            f"train it on. Something that the model was compiled with cannot be copied: {error}"
        )
        return
    before, after = model.optimizer, small.optimizer
    if before is None or after is None or not before.built:
        return
    after.build(small.trainable_variables)
    origins = {
        id(new_variable): (old, old_variable)
        for old, new in pairs
        for new_variable in _own(new)
        for old_variable in _own(old)
        if old_variable.name == new_variable.name
    }
    _carry(before, after, origins, cut)


def _compiled_with(model: keras.Model) -> dict[str, Any]:
    """Return the user's own functions and classes that a model was compiled with, by name."""
    given = keras.tree.flatten(getattr(model._compile_config, "config", {}))
    named = [each if isinstance(each, FunctionType) else type(each) for each in given]
    return {each.__name__: each for each in named if not each.__module__.startswith("keras.")}


def _own(layer: Any) -> list[Any]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _carry(before: Any, after: Any, origins: dict[int, tuple[Any, Any]], cut: Cut) -> None:
    """Carry over an optimizer's variables: one for each weight, or one for all."""
    places = {id(variable): at for at, variable in enumerate(before._trainable_variables)}
    lists = [
        name
        for name, value in vars(before).items()
        if name != "_variables" and _is_one_each(value, len(places))
    ]
    inside: set[int] = set()
    for name in lists:
        inside |= {id(each) for each in getattr(before, name)}
        if name == "_trainable_variables":
            continue
        for at, weight in enumerate(after._trainable_variables):
            layer, origin = origins.get(id(weight), (None, None))
            if layer is None or id(origin) not in places:
                continue  # A bias that the small model alone has.
            of_before = getattr(before, name)[places[id(origin)]]
            of_after = getattr(after, name)[at]
            value = array_of(keras.ops.cast(of_before, "float32"))
            if of_before.shape == origin.shape:
                value = cut(layer, origin.name, value)
            if value.shape == tuple(of_after.shape):
                of_after.assign(value)
    alone = ([v for v in each.variables if id(v) not in inside] for each in (before, after))
    for old, new in _same_places(*alone):
        # A number of its own: on JAX, training one model would take the other's away.
        new.assign(np.array(array_of(old)))
    inner = getattr(before, "inner_optimizer", None)
    if inner is not None:
        _carry(inner, after.inner_optimizer, origins, cut)


def _is_one_each(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(each, keras.Variable) for each in value)
    )


def _same_places(before: list[Any], after: list[Any]) -> list[tuple[Any, Any]]:
    """Pair what is there once for all weights, such as the number of steps, in order."""
    scalars = ([each for each in some if each.shape == ()] for some in (before, after))
    return [(old, new) for old, new in zip(*scalars, strict=False) if old.name == new.name]

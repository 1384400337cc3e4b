"""Layers that are smaller than their class would build them, and stay so through files.

A block of the user's own makes its inner layers itself, and its config says nothing of how large
they are after pruning. So a copy of it is built as large as it was, cut to shape in place, and
becomes a *shape carrier*: its class is replaced by a subclass of the same name whose config holds
the shapes as well. `isinstance`, methods and attributes are those of its own class.

    Block(8)  →  class Block(Block)     config: {"layer": {… "units": 8}, "build": …, "sizes": …}

Loading does the same again: build as large as it was, cut to shape, read the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, wraps
from typing import Any

import keras
import numpy as np

from prune_core.errors import SpeedupError
from prune_tf.speedup.record import left_as_it_was
from prune_tf.speedup.reshapes import tell, told_call

__all__ = [
    "ShapeCarrier",
    "own_classes",
    "own_variables",
    "plain_class",
    "shape",
    "written_arguments",
]

_REGISTERED = "prune_tf>ShapeCarrier"
RESHAPES = "reshapes told"
"""By which key the sizes of a layer say what its reshapes are told."""

Sizes = dict[str, dict[str, Any]]
"""`{place of a layer: {"weights": shapes of its own variables, attribute: value, …}}`."""


class ShapeCarrier:
    """What a layer has besides its own class, if it is smaller than that would build it."""

    _whole_class: type
    _shaped: Mapping[str, Any]

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer as large as it was, and how to cut it."""
        kind = type(self)
        self.__class__ = self._whole_class
        try:
            config = keras.saving.serialize_keras_object(self)
        finally:
            self.__class__ = kind
        plain = {key: config[key] for key in ("module", "class_name", "config", "registered_name")}
        return {"layer": plain, **self._shaped}

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Run `call()`; what the layer's class says of shapes is true of the whole layer only."""
        try:
            found = keras.Operation.compute_output_spec(self, *args, **kwargs)
        except Exception:  # whatever a layer's own Python raises
            found = None
        # A layer may return nothing in the place of a cache, and then its class leaves that out.
        if not all(isinstance(each, keras.KerasTensor) for each in keras.tree.flatten(found)):
            return super().compute_output_spec(*args, **kwargs)  # type: ignore[misc]
        # What comes in may be said to have fewer axes than it has, and the class knows better.
        try:
            told = super().compute_output_spec(*args, **kwargs)  # type: ignore[misc]
        except Exception:  # whatever does not fit a layer that was cut
            return found
        return found if _ranks(found) == _ranks(told) else told

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return the layer, built and cut to shape."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return shape(layer, config["build"], config["sizes"])


keras.saving.register_keras_serializable(package="prune_tf", name="ShapeCarrier")(ShapeCarrier)


def _ranks(specs: Any) -> list[int]:
    return [len(each.shape) for each in keras.tree.flatten(specs)]


def shape(layer: Any, build: Any, sizes: Sizes) -> Any:
    """Build a layer, cut what is inside of it to shape, and have it remember that.

    Args:
        layer: A layer as its config makes it.
        build: What it is called with, as `written_arguments` writes that down.
        sizes: What becomes of the layers inside of it, by their places.
    """
    if not _is_whole(layer):
        args, kwargs = _read(build)
        with left_as_it_was(layer):
            layer(*args, **kwargs)
    inside, kind = layer._flatten_layers(), type(layer)
    for place, each in sizes.items():
        _cut(inside[int(place)], each)
    if not isinstance(layer, ShapeCarrier):
        layer.__class__ = _carrier_of(kind)  # type: ignore[arg-type]
    object.__setattr__(layer, "_shaped", {"build": build, "sizes": sizes})
    return layer


def _is_whole(layer: Any) -> bool:
    """Whether a layer has all of its weights already, as a functional model has."""
    return bool(layer.built and all(each.built for each in layer._flatten_layers()))


def plain_class(layer: Any) -> type:
    """Return the class that a layer had before it was cut to shape."""
    if isinstance(layer, ShapeCarrier):
        return layer._whole_class
    untold: type = getattr(type(layer), "_untold", type(layer))
    return untold


def own_classes(layer: Any) -> dict[str, type]:
    """Return the user's own classes in a layer by name, registered with Keras or not."""
    kinds = [plain_class(each) for each in layer._flatten_layers()]
    return {each.__name__: each for each in kinds if not each.__module__.startswith("keras.")}


def own_variables(layer: Any) -> list[Any]:
    """Return the variables of a layer that are not those of a layer inside of it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _cut(layer: Any, sizes: Mapping[str, Any]) -> None:
    for variable, size in zip(own_variables(layer), sizes["weights"], strict=True):
        if tuple(variable.shape) != tuple(size):
            _resize(variable, tuple(size))
    if RESHAPES in sizes:
        tell(layer, sizes[RESHAPES])
    for name, value in sizes.items():
        if name not in ("weights", RESHAPES):
            known = getattr(layer, name)
            setattr(layer, name, tuple(value) if isinstance(known, tuple) else value)
    spec = getattr(layer, "input_spec", None)
    specs = spec if isinstance(spec, list | tuple) else [spec]
    for each in specs:
        # What a layer takes is told by its weights from now on.
        if each is not None and getattr(each, "axes", None):
            each.axes = {}
        if each is not None and getattr(each, "shape", None):
            each.shape = None


def _resize(variable: Any, size: tuple[int, ...]) -> None:
    """Give a variable another shape, keeping it what it is for whoever holds it."""
    variable._shape = size
    variable._initialize(keras.ops.zeros(size, variable.dtype))


@cache
def _carrier_of(kind: Any) -> type:
    @wraps(kind.call)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return told_call(self, kind.call, args, kwargs)

    members = {
        "__module__": __name__,
        "__doc__": kind.__doc__,
        "_whole_class": kind,
        "call": call,
    }
    made = type(kind.__name__, (ShapeCarrier, kind), members)
    # Registered under the one name by which a process that has no such subclass finds its way.
    package, name = _REGISTERED.split(">")
    register = keras.saving.register_keras_serializable(package=package, name=name)
    register(made)
    register(ShapeCarrier)
    return made


def written_arguments(arguments: tuple[tuple[Any, ...], dict[str, Any]], layer: Any) -> Any:
    """Write down what a layer is called with, so that it can be built anew.

    Raises:
        SpeedupError: When that holds what no config can.
    """

    def written(given: Any) -> Any:
        if isinstance(given, keras.KerasTensor):
            return {
                "tensor": list(given.shape),
                "dtype": keras.backend.standardize_dtype(given.dtype),
            }
        if isinstance(given, Mapping):
            return {"dict": {key: written(value) for key, value in given.items()}}
        if isinstance(given, list | tuple):
            return [written(each) for each in given]
        if isinstance(given, np.ndarray) or keras.ops.is_tensor(given):
            value = np.asarray(keras.ops.convert_to_numpy(given))
            return {"tensor": list(value.shape), "dtype": str(value.dtype)}
        if given is None or isinstance(given, bool | int | float | str):
            return given
        raise SpeedupError(
            f"{layer.name!r} is called with a {type(given).__name__}, which no file can hold, so "
            "that it cannot be made smaller inside. Mask what is outside of it."
        )

    args, kwargs = arguments
    return {"args": [written(each) for each in args], "kwargs": written(dict(kwargs))}


def _read(build: Any) -> tuple[list[Any], dict[str, Any]]:
    def read(given: Any) -> Any:
        if isinstance(given, Mapping) and "tensor" in given:
            return keras.KerasTensor(tuple(given["tensor"]), given["dtype"])
        if isinstance(given, Mapping):
            return {key: read(value) for key, value in given["dict"].items()}
        if isinstance(given, list | tuple):
            return [read(each) for each in given]
        return given

    return [read(each) for each in build["args"]], read(build["kwargs"])

"""Masks inside of layers that build their own layers, in files of whole models.

Keras writes a layer's config and builds it anew from that. An attention layer, or one of the
user's own, then makes fresh layers inside, and nothing in the config says that they were masked.
So the outermost layer whose config is silent about masks inside of it becomes a *carrier*: its
class is replaced by a subclass of the same name whose config holds the masks as well. That is how
`torch.nn.utils.parametrize` changes modules, and like there, everything else about the layer stays.

    block = Block(...)             config: {"units": 8}
    carry → class Block(Block)     config: {"layer": {... "units": 8}, "masks": {"2": "eJz…"}}

A mask is written down by the place of its variable among the layer's weights, because names of
inner layers depend on how many layers a process has made before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras

from prune_tf.constraint import Masked, packed, unpacked
from prune_tf.layers import slots_of
from prune_tf.masked_variable import put_mask

__all__ = ["MaskCarrier", "attach", "carry", "drop", "dropped"]

_REGISTERED = "prune_tf>MaskCarrier"


class MaskCarrier:
    """What a layer that carries the masks of layers inside of it has besides its own class."""

    _plain_class: type
    _waiting: Mapping[str, str] | None = None

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer, and the masks of all that is inside of it."""
        with _as(self, self._plain_class):
            config = keras.saving.serialize_keras_object(self)
        plain = {key: config[key] for key in ("module", "class_name", "config", "registered_name")}
        if self._waiting is not None:
            return {"layer": plain, "masks": dict(self._waiting)}
        masks = {
            str(at): packed(variable.constraint.numpy())
            for at, variable in enumerate(self.weights)  # type: ignore[attr-defined]
            if isinstance(variable.constraint, Masked)
        }
        return {"layer": plain, "masks": masks}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return the layer; its masks are put on once it is built."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        _become_carrier(layer)
        object.__setattr__(layer, "_waiting", dict(config["masks"]))
        return layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer, which builds it; then its masks can be put on."""
        outputs = super().__call__(*args, **kwargs)  # type: ignore[misc]
        _put_on(self)
        return outputs

    def build_from_config(self, config: Any) -> None:
        """Build the layer; then its masks can be put on."""
        super().build_from_config(config)  # type: ignore[misc]
        _put_on(self)

    def load_own_variables(self, store: Any) -> None:
        """Read the layer's own variables; what is inside of it is read next, masks included."""
        _put_on(self)
        super().load_own_variables(store)  # type: ignore[misc]


keras.saving.register_keras_serializable(package="prune_tf", name="MaskCarrier")(MaskCarrier)


def carry(model: keras.Model) -> None:
    """Make carriers of the layers whose config says less about masks than there is inside."""
    for layer in _silent(model):
        _become_carrier(layer)


def drop(model: keras.Model) -> None:
    """Make all carriers plain layers again."""
    for layer in [*_carriers(model)]:
        layer.__class__ = layer._plain_class


@contextmanager
def dropped(model: keras.Model) -> Iterator[None]:
    """Make all carriers plain layers for a while."""
    carriers = [(layer, type(layer)) for layer in _carriers(model)]
    drop(model)
    try:
        yield
    finally:
        for layer, kind in carriers:
            layer.__class__ = kind


def attach(model: keras.Model) -> None:
    """Put on the masks that carriers were loaded with, wherever that was not possible before."""
    for layer in _carriers(model):
        _put_on(layer)


@contextmanager
def _as(layer: Any, kind: type) -> Iterator[None]:
    before = type(layer)
    layer.__class__ = kind
    try:
        yield
    finally:
        layer.__class__ = before


def _become_carrier(layer: Any) -> None:
    if not isinstance(layer, MaskCarrier):
        layer.__class__ = _carrier_of(type(layer))  # type: ignore[arg-type]


@cache
def _carrier_of(kind: type) -> type:
    members = {"__module__": __name__, "__doc__": kind.__doc__, "_plain_class": kind}
    made = type(kind.__name__, (MaskCarrier, kind), members)
    # Registered under the one name by which a process that has no such subclass finds its way.
    package, name = _REGISTERED.split(">")
    register = keras.saving.register_keras_serializable(package=package, name=name)
    register(made)
    register(MaskCarrier)
    return made


def _carriers(model: keras.Model) -> Iterator[Any]:
    for layer in model._flatten_layers():
        if isinstance(layer, MaskCarrier):
            yield layer


def _silent(model: Any) -> Iterator[Any]:
    """The outermost layers that hold more masks than their config tells of."""
    inside = sum(isinstance(v.constraint, Masked) for v in model.weights)
    if not inside or isinstance(model, MaskCarrier):
        return
    if _has_layers_in_config(model):
        for layer in model.layers:
            yield from _silent(layer)
        return
    try:
        told = _count(model.get_config())
    except (NotImplementedError, TypeError, ValueError):
        told = 0
    if told < inside:
        yield model


def _has_layers_in_config(layer: Any) -> bool:
    """Whether a layer is a model whose config consists of the configs of its layers."""
    functional = isinstance(layer, keras.Sequential) or hasattr(layer, "operations")
    return functional and type(layer).get_config.__module__.partition(".")[0] == "keras"


def _count(config: Any) -> int:
    """How many masks a config tells of."""
    if isinstance(config, dict):
        own = config.get("registered_name") == "prune_tf>Masked"
        if config.get("registered_name") == _REGISTERED:
            return len(config["config"]["masks"])
        return own + sum(_count(value) for value in config.values())
    if isinstance(config, list | tuple):
        return sum(_count(value) for value in config)
    return 0


def _put_on(layer: Any) -> None:
    """Put on the masks that a carrier was loaded with, if all that they mask is there by now."""
    waiting = layer._waiting
    if not waiting or not layer.built or len(layer.weights) <= max(map(int, waiting)):
        return
    object.__setattr__(layer, "_waiting", None)
    variables = layer.weights
    places = {id(variables[int(at)]): text for at, text in waiting.items()}
    for each in layer._flatten_layers():
        for slot in slots_of(each).values():
            variable = getattr(each, slot.name)
            if id(variable) in places:
                text = places[id(variable)]
                put_mask(each, slot, unpacked(text, tuple(variable.shape)))

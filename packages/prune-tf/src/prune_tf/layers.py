"""The layers of a model, by name, and which of their variables can be masked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from prune_core.errors import ConfigError, shown

__all__ = ["Named", "Slot", "layers_of", "slots_of", "weight_slots"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A variable of a layer that can be masked.

    Attributes:
        name: Attribute of the layer that holds the variable.
        constraint: Attributes of which one holds its constraint, so that it is saved.
        file_name: What mask files call it: what torch calls the same thing.
        is_weight: Whether it is what algorithms score, rather than a companion.
    """

    name: str
    constraint: tuple[str, ...]
    file_name: str
    is_weight: bool = True


SLOTS = (
    Slot("kernel", ("kernel_constraint", "depthwise_constraint"), "weight"),
    Slot("pointwise_kernel", ("pointwise_constraint",), "weight"),
    Slot("embeddings", ("embeddings_constraint",), "weight"),
    Slot("gamma", ("gamma_constraint",), "weight"),
    Slot("recurrent_kernel", ("recurrent_constraint",), "recurrent_weight"),
    Slot("depthwise_kernel", ("depthwise_constraint",), "depthwise_weight", is_weight=False),
    Slot("bias", ("bias_constraint",), "bias", is_weight=False),
    Slot("beta", ("beta_constraint",), "bias", is_weight=False),
)
COMPUTED = ("lora_", "quantized_")
"""How the variables begin from which a layer computes its kernel."""


@dataclass(frozen=True, slots=True)
class Named:
    """A layer and the names it goes by: paths such as `"backbone/conv1"`, the first one first."""

    layer: Any
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name that masks and messages use."""
        return self.names[0]


def slots_of(layer: Any) -> dict[str, Slot]:
    """Return the maskable variables that a layer has, by name.

    Those are the ones that Keras' layers have, and whatever a layer of the user's own holds in an
    attribute: `self.mixing = self.add_weight(...)` is a weight if it has several axes.
    """
    # SpectralNormalization has the kernel of the layer inside in an attribute too.
    inside = {id(variable) for each in _layers_inside(layer) for variable in each.weights}
    found = {
        slot.name: slot
        for slot in SLOTS
        # A layer with LoRA computes its kernel; only a variable can be masked.
        if isinstance(variable := getattr(layer, slot.name, None), keras.Variable)
        and id(variable) not in inside
    }
    known = inside | {id(getattr(layer, name)) for name in found}
    own = {id(variable) for variable in getattr(layer, "_trainable_variables", ())}
    for name, value in vars(layer).items():
        if id(value) not in own - known or name.lstrip("_").startswith(COMPUTED):
            continue
        if not keras.backend.is_float_dtype(value.dtype):
            continue
        known.add(id(value))
        public = name.lstrip("_")
        name = public if getattr(layer, public, None) is value else name
        several = sum(size > 1 for size in value.shape) > 1
        found[name] = Slot(name, (f"{public}_constraint",), public, is_weight=several)
    return found


def _layers_inside(layer: Any) -> Iterator[Any]:
    yield from layer._flatten_layers(include_self=False, recursive=False)


def weight_slots(layer: Any) -> list[Slot]:
    """Return the variables that algorithms score, the layer's main one first."""
    return [slot for slot in slots_of(layer).values() if slot.is_weight]


def layers_of(model: keras.Model) -> list[Named]:
    """Return every layer inside a model, in the model's order, also those inside other layers.

    Raises:
        ConfigError: When it is no model, or two layers go by the same name.
    """
    if not isinstance(model, keras.layers.Layer):
        raise ConfigError(f"model is {shown(model)}; it must be a Keras 3 model (keras.Model).")
    paths: dict[int, list[str]] = defaultdict(list)
    layers: dict[int, Any] = {}
    for path, layer in _walk(model, ""):
        layers[id(layer)] = layer
        if path not in paths[id(layer)]:
            paths[id(layer)].append(path)
    owner: dict[str, int] = {}
    for key, names in paths.items():
        for name in names:
            if owner.setdefault(name, key) != key:
                raise ConfigError(
                    f"Two layers are called {name!r}, so no rule and no mask can tell them apart. "
                    "Give each a name of its own: Dense(..., name='head')."
                )
    return [Named(layers[key], tuple(names)) for key, names in paths.items()]


def _walk(parent: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for layer in parent._flatten_layers(include_self=False, recursive=False):
        path = f"{prefix}{layer.name}"
        yield path, layer
        yield from _walk(layer, f"{path}/")

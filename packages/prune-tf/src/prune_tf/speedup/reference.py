"""The model that the small one must equal: the big one, with its masks applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from prune_tf.constraint import Masked
from prune_tf.layers import layers_of, slots_of
from prune_tf.masks import check_masks
from prune_tf.speedup.copies import copy_model

__all__ = ["Values", "masked_weights", "reader", "reference_model"]

Array = np.ndarray[Any, Any]
Values = dict[tuple[int, str], Array]


def masked_weights(model: keras.Model, masks: Mapping[str, Mapping[str, Any]] | None) -> Values:
    """Return `{(layer, variable): mask}` of the masks in force and of those given."""
    found: Values = {}
    for named in layers_of(model):
        for name in slots_of(named.layer):
            constraint = getattr(named.layer, name).constraint
            if isinstance(constraint, Masked):
                found[id(named.layer), name] = constraint.numpy()
    for layer, slot, mask in check_masks(model, masks or {}):
        found[id(layer), slot.name] = mask
    return found


def reader(masks: Values) -> Callable[[Any, str], Array]:
    """Return a function that reads a layer's variable with its mask applied."""

    def read(layer: Any, name: str) -> Array:
        variable = next(v for v in layer.weights if v.name == name)
        value = np.asarray(variable.numpy())
        if value.dtype.kind != "f" or value.itemsize < 4:
            value = value.astype("float32")
        mask = masks.get((id(layer), name))
        return value if mask is None else np.where(mask, value, np.zeros((), value.dtype))

    return read


def reference_model(model: keras.Model, masks: Values) -> keras.Model:
    """Return a copy of a model with masks applied to its weights."""
    copy = copy_model(model)
    copy.set_weights(model.get_weights())
    read = reader(masks)
    for old, new in zip(layers_of(model), layers_of(copy), strict=True):
        by_name = {variable.name: variable for variable in new.layer.weights}
        for layer, name in masks:
            if layer == id(old.layer):
                by_name[name].assign(read(old.layer, name))
    return copy

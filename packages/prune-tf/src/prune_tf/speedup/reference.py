"""The model that the small one must equal: the big one, with its masks applied for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np

from prune_tf.arrays import array_of
from prune_tf.constraint import Masked
from prune_tf.layers import layers_of, slots_of
from prune_tf.masks import check_masks

__all__ = ["Values", "masked", "masked_weights", "reader"]

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
        variable = getattr(layer, name, None)
        if not isinstance(variable, keras.Variable):
            variable = next(v for v in layer.weights if v.name == name)
        value = array_of(variable)
        if value.dtype.kind != "f" or value.itemsize < 4:
            value = value.astype("float32")
        mask = masks.get((id(layer), name))
        return value if mask is None else np.where(mask, value, np.zeros((), value.dtype))

    return read


@contextmanager
def masked(model: keras.Model, masks: Values) -> Iterator[None]:
    """Have a model compute with masks applied, and afterwards as before.

    Nothing is copied, so that what is compared and read is the model itself, with all state that
    its layers may have.
    """
    restore: list[Callable[[], Any]] = []
    try:
        for named in layers_of(model):
            for name in slots_of(named.layer):
                mask = masks.get((id(named.layer), name))
                variable = getattr(named.layer, name)
                if mask is None or not array_of(variable)[~mask].any():
                    continue  # it is zero there as it is
                value = keras.ops.convert_to_tensor(variable)
                restore.append(partial(variable.assign, keras.ops.copy(value)))
                variable.assign(keras.ops.where(mask, value, keras.ops.zeros_like(value)))
        yield
    finally:
        for step in reversed(restore):
            step()

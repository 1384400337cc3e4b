"""Masks on the layers of a model: put on, looked at, applied, taken off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np

from prune_core.compressed import model_of
from prune_core.errors import MaskError, did_you_mean
from prune_tf import carrier
from prune_tf.arrays import array_of
from prune_tf.constraint import Masked
from prune_tf.layers import Slot, layers_of, slots_of
from prune_tf.masked_variable import put_mask, set_constraint

__all__ = [
    "Masks",
    "apply_masks",
    "check_masks",
    "hold_masks",
    "masks_of",
    "plain",
    "put_masks",
    "renew_compiled_step",
    "set_masks",
    "unwrap",
]

Masks = dict[str, dict[str, np.ndarray[Any, Any]]]


def masks_of(model: keras.Model) -> Masks:
    """Return the masks in force, `{layer name: {variable name: boolean array}}`.

    Args:
        model: The masked model.
    """
    masks: Masks = {}
    for name, _, slot, constraint in _masked(model):
        masks.setdefault(name, {})[slot.name] = constraint.numpy()
    return masks


def set_masks(model: keras.Model, masks: Mapping[str, Mapping[str, Any]]) -> None:
    """Put masks in force and set what they mask to zero; other masks stay as they are.

    From here on every optimizer update keeps the zeros, whoever calls it. The masks are part of
    the model's state: `save`, `save_weights` and `tf.train.Checkpoint` write them too.

    Args:
        model: A built model, changed in place.
        masks: `{layer name: {variable name: mask}}`, shaped as the variables are.

    Raises:
        MaskError: When a mask does not fit, or there is none; nothing is changed then.
    """
    if not put_masks(model, masks):
        raise MaskError(
            "masks is empty, so nothing would be masked; give it a layer, such as "
            "{'conv': {'kernel': mask}}."
        )


def put_masks(model: keras.Model, masks: Mapping[str, Mapping[str, Any]]) -> int:
    """Do what `set_masks` does, for as many masks as there are; return how many.

    Args:
        model: A built model, changed in place.
        masks: `{layer name: {variable name: mask}}`, shaped as the variables are.
    """
    fitting = check_masks(model, masks)
    done = {put_mask(layer, slot, mask) for layer, slot, mask in fitting}
    if "added" in done:
        carrier.carry(model)
    renew_compiled_step(model, added="added" in done, changed="changed" in done)
    return len(fitting)


def apply_masks(model: keras.Model) -> None:
    """Set what is masked to zero again.

    For training loops that write to weights by themselves (`variable.assign_sub(...)`) and for
    weights that were loaded or averaged: call it after each write. Loops that use a Keras
    optimizer need nothing.

    Args:
        model: The masked model.

    Raises:
        MaskError: When it has no masks.
    """
    if not hold_masks(model):
        raise MaskError(
            "The model has no masks, so nothing would be set to zero. A pruner puts some on it, "
            "and so does prune_tf.set_masks(model, masks); unwrap() takes them off."
        )


def hold_masks(model: keras.Model) -> int:
    """Do what `apply_masks` does, and return how many masks there are.

    Args:
        model: The model, masked or not.
    """
    found = [*_masked(model)]
    for _, layer, slot, constraint in found:
        constraint.bind(getattr(layer, slot.name))
        constraint.hold()
    return len(found)


def unwrap(model: keras.Model) -> keras.Model:
    """Take all masks off, leaving the zeros in the weights; the model is plain Keras again.

    Args:
        model: The masked model.
    """
    model = model_of(model)
    found = [*_masked(model)]
    for _, layer, slot, constraint in found:
        constraint.bind(getattr(layer, slot.name))
        constraint.hold()
        set_constraint(layer, slot, constraint.inner)
    carrier.drop(model)
    renew_compiled_step(model, added=bool(found))
    return model


@contextmanager
def plain(model: keras.Model) -> Iterator[keras.Model]:
    """Take the masks off for a while; what they mask is zero meanwhile, and afterwards as before.

    Nothing is copied, so whatever Keras can write of the model it can write of the plain one.
    """
    found = [*_masked(model)]
    restore: list[Callable[[], Any]] = []
    try:
        for _, layer, slot, constraint in found:
            variable = getattr(layer, slot.name)
            value = array_of(variable)
            if value[~constraint.numpy()].any():
                restore.append(partial(variable.assign, np.array(value)))
                variable.assign(constraint.masked(variable))
            restore.append(partial(set_constraint, layer, slot, constraint))
            set_constraint(layer, slot, constraint.inner)
        with carrier.dropped(model):
            yield model
    finally:
        for step in reversed(restore):
            step()


def check_masks(
    model: keras.Model, masks: Mapping[str, Mapping[str, Any]]
) -> list[tuple[Any, Slot, np.ndarray[Any, Any]]]:
    """Return each layer, slot and boolean mask, or raise what `set_masks` would raise."""
    masks = _mapping("masks", masks)
    layers = {name: named.layer for named in layers_of(model) for name in named.names}
    fitting = []
    for layer_name, tensors in masks.items():
        if layer_name not in layers:
            raise MaskError(
                f"The masks have {layer_name!r}, and the model has no layer of that name."
                f"{did_you_mean(layer_name, layers)}"
            )
        layer = layers[layer_name]
        slots = slots_of(layer)
        for name, mask in _mapping(f"masks[{layer_name!r}]", tensors).items():
            if name not in slots:
                raise MaskError(
                    f"The masks have {layer_name!r} {name!r}; this {type(layer).__name__} can be "
                    f"masked in {', '.join(slots) or 'nothing, or is not built yet'}."
                )
            fitting.append((layer, slots[name], _checked(layer_name, layer, name, mask)))
    return fitting


def _masked(model: keras.Model) -> Iterator[tuple[str, Any, Slot, Masked]]:
    """Yield each masked variable: the layer's name, the layer, the slot and the constraint."""
    layers = layers_of(model)
    carrier.attach(model)
    for named in layers:
        for slot in slots_of(named.layer).values():
            constraint = getattr(named.layer, slot.name).constraint
            if isinstance(constraint, Masked):
                yield named.name, named.layer, slot, constraint


def _mapping(argument: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MaskError(
            f"{argument} is a {type(value).__name__}; masks are a mapping "
            "{layer name: {variable name: mask}}."
        )
    return value


def _checked(layer_name: str, layer: Any, name: str, mask: Any) -> np.ndarray[Any, Any]:
    mask = np.asarray(mask)
    shape = tuple(getattr(layer, name).shape)
    if mask.shape != shape:
        raise MaskError(
            f"The mask of {layer_name!r} {name!r} has the shape {mask.shape}; the variable has "
            f"{shape}. Was the mask made for another model?"
        )
    if mask.dtype != bool:
        odd = mask[(mask != 0) & (mask != 1)]
        if odd.size:
            raise MaskError(
                f"The mask of {layer_name!r} {name!r} holds {odd.flat[0]}; a mask holds 0 "
                "(pruned) and 1."
            )
    return np.asarray(mask, bool)


def renew_compiled_step(model: Any, *, added: bool = False, changed: bool = False) -> None:
    """Have the step of `fit` compiled anew where the old one was traced with other masks.

    A `fit` that is running goes on with the new one.

    Args:
        model: The model that is trained.
        added: Whether masks were put on or taken off.
        changed: Whether masks in force have changed; a step of TensorFlow and torch reads those,
            and JAX compiles them in.
    """
    stale = added or (changed and keras.backend.backend() == "jax")
    if stale and getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)

"""Masks on the layers of a model: put on, looked at, applied, taken off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from prune_core.compressed import model_of
from prune_core.errors import MaskError, did_you_mean
from prune_tf.constraint import Masked
from prune_tf.layers import Slot, layers_of, slots_of

__all__ = ["Masks", "apply_masks", "check_masks", "masks_of", "set_masks", "unwrap"]

Masks = dict[str, dict[str, np.ndarray[Any, Any]]]


def masks_of(model: keras.Model) -> Masks:
    """Return the masks in force, `{layer name: {variable name: boolean array}}`."""
    masks: Masks = {}
    for named in layers_of(model):
        for name in slots_of(named.layer):
            constraint = getattr(named.layer, name).constraint
            if isinstance(constraint, Masked):
                masks.setdefault(named.name, {})[name] = constraint.numpy()
    return masks


def set_masks(model: keras.Model, masks: Mapping[str, Mapping[str, Any]]) -> None:
    """Put masks in force and set what they mask to zero; other masks stay as they are.

    From here on every optimizer update keeps the zeros, whoever calls it.

    Args:
        model: A built model, changed in place.
        masks: `{layer name: {variable name: mask}}`, shaped as the variables are.

    Raises:
        MaskError: When a mask does not fit; nothing is changed then.
    """
    fitting = check_masks(model, masks)
    added = False
    for layer, slot, mask in fitting:
        variable = getattr(layer, slot.name)
        constraint = variable.constraint
        if isinstance(constraint, Masked):
            constraint.mask.assign(mask)
        else:
            _set_constraint(layer, slot, Masked(mask.shape, mask, inner=constraint))
            added = True
        _zero(variable)
    if added:
        _forget_compiled_steps(model)


def apply_masks(model: keras.Model) -> None:
    """Set what is masked to zero again.

    For training loops that write to weights by themselves (`variable.assign_sub(...)`) and for
    weights that were loaded or averaged: call it after each write. Loops that use a Keras
    optimizer need nothing.
    """
    for named in layers_of(model):
        for name in slots_of(named.layer):
            variable = getattr(named.layer, name)
            if isinstance(variable.constraint, Masked):
                _zero(variable)


def unwrap(model: keras.Model) -> keras.Model:
    """Take all masks off, leaving the zeros in the weights; the model is plain Keras again."""
    model, removed = model_of(model), False
    for named in layers_of(model):
        for name, slot in slots_of(named.layer).items():
            constraint = getattr(named.layer, name).constraint
            if isinstance(constraint, Masked):
                _set_constraint(named.layer, slot, constraint.inner)
                removed = True
    if removed:
        _forget_compiled_steps(model)
    return model


def check_masks(
    model: keras.Model, masks: Mapping[str, Mapping[str, Any]]
) -> list[tuple[Any, Slot, np.ndarray[Any, Any]]]:
    """Return each layer, slot and boolean mask, or raise what `set_masks` would raise."""
    layers = {name: named.layer for named in layers_of(model) for name in named.names}
    fitting = []
    for layer_name, tensors in _mapping("masks", masks).items():
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


def _set_constraint(layer: Any, slot: Slot, constraint: Any) -> None:
    getattr(layer, slot.name).constraint = constraint
    for attribute in slot.constraint:
        # What get_config() reads, so that copies and files of the model have it too.
        if hasattr(layer, attribute):
            setattr(layer, attribute, constraint)
            break


def _zero(variable: Any) -> None:
    variable.assign(variable.constraint(variable))


def _forget_compiled_steps(model: keras.Model) -> None:
    """Have the next `fit` compile its step anew: the old one was traced without the masks."""
    if getattr(model, "train_function", None) is not None:
        model.train_function = None

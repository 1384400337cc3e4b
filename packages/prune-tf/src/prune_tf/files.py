"""Masks of Keras layers, to and from files that every framework shares."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import keras
import numpy as np

from prune_core.errors import MaskError, MaskFileError, did_you_mean
from prune_core.maskfile import MaskFile, read_mask_file, write_mask_file
from prune_tf.axes import from_torch, to_torch, torch_shape
from prune_tf.layers import Named, layers_of, slots_of
from prune_tf.masks import Masks, check_masks

__all__ = ["load_masks", "save_masks"]


def save_masks(
    path: str | PathLike[str],
    masks: Mapping[str, Mapping[str, Any]],
    model: keras.Model | None = None,
    *,
    algorithm: str = "",
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write masks to a safetensors file that prune reads in every framework.

    A file speaks torch's language: layers `block.conv`, tensors `weight` and `bias`, axes with
    output channels first. `load_masks` of either framework turns that into its own.

    Args:
        path: The file.
        masks: `{layer name: {variable name: mask}}`.
        model: The model that the masks fit; its layers say how axes lie.
        algorithm: What made them, for the header.
        config: The settings that led to them, for the header.

    Raises:
        MaskError: When a mask does not fit the model; nothing is written then.
    """
    if isinstance(path, keras.Model | Mapping) or isinstance(masks, keras.Model | str | PathLike):
        raise MaskError(
            f"path is a {type(path).__name__} and masks is a {type(masks).__name__}: save_masks "
            "takes (path, masks, model), in that order."
        )
    if model is None:
        raise MaskError(
            "save_masks needs the model as well, whose layers say how the axes of a mask lie: "
            "save_masks(path, masks, model)."
        )
    check_masks(model, masks)
    layers = {name: named for named in layers_of(model) for name in named.names}
    arrays: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for layer_name, tensors in masks.items():
        named = layers[layer_name]
        key = _dotted(named.name)
        if key in arrays:
            raise MaskFileError(f"Two layers would both be called {key!r} in {path}; rename one.")
        slots = slots_of(named.layer)
        arrays[key] = {
            slots[name].file_name: np.ascontiguousarray(
                to_torch(named.layer, name, np.asarray(mask, bool))
            )
            for name, mask in tensors.items()
        }
    write_mask_file(path, MaskFile(arrays, algorithm=algorithm, config=dict(config or {})))


def load_masks(
    path: str | PathLike[str], model: keras.Model, names: Mapping[str, str] | None = None
) -> Masks:
    """Read masks for a model, from a file written for Keras or for torch.

    Args:
        path: The file.
        model: The model they are for; it is not changed.
        names: `{name in the file: layer name}`, for layers that go by another name here.

    Raises:
        MaskFileError: When the file is damaged or does not fit the model.
    """
    layers: dict[str, Named] = {}
    for named in layers_of(model):
        for name in named.names:
            layers[name] = layers[_dotted(name)] = named
    masks: Masks = {}
    for key, tensors in read_mask_file(path).masks.items():
        wanted = (names or {}).get(key, key)
        if wanted not in layers:
            raise MaskFileError(
                f"{path} has masks for {key!r}, and the model has no layer "
                f"{wanted!r}.{did_you_mean(wanted, layers)} If it goes by another name here, say "
                f"so: names={{{key!r}: ...}}."
            )
        named = layers[wanted]
        masks[named.name] = {
            name: from_torch(named.layer, name, mask)
            for name, mask in _by_variable(path, key, named, tensors)
        }
    return masks


def _by_variable(
    path: str | PathLike[str], key: str, named: Named, tensors: Mapping[str, Any]
) -> list[tuple[str, np.ndarray[Any, Any]]]:
    by_file_name = {slot.file_name: name for name, slot in slots_of(named.layer).items()}
    found = []
    for tensor, mask in tensors.items():
        if tensor not in by_file_name:
            # A layer may well do without a bias that its counterpart has.
            if mask.all() or tensor == "bias":
                continue
            raise MaskFileError(
                f"{path} has a mask for {key}.{tensor}, which the "
                f"{type(named.layer).__name__} {named.name!r} does not have."
            )
        name = by_file_name[tensor]
        expected = torch_shape(named.layer, name)
        if mask.shape != expected:
            raise MaskFileError(
                f"{path}: the mask {key}.{tensor} has the shape {mask.shape}; {named.name!r} "
                f"{name!r} has {expected} when written with output channels first. Was the mask "
                "made for another model?"
            )
        found.append((name, mask))
    return found


def _dotted(name: str) -> str:
    return name.replace("/", ".")

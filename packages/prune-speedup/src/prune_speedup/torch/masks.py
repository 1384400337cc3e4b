"""Masks of any origin as one flat `{tensor name: 0/1 tensor}`, checked against the model."""

from collections.abc import ItemsView, Mapping
from functools import reduce
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prune_core.config.names import by_known_names
from prune_core.errors import MaskError, did_you_mean
from prune_core.masking.slices import held_on, in_rows, zeros_along
from prune_core.traversal import named_modules, named_parameters, named_tensors
from prune_speedup.engine.graph import Graph
from prune_speedup.engine.propagate import Zeros

__all__ = ["Masks", "asked_for", "flat_masks", "nested_masks", "of_tied", "zeros_of"]

Masks = Mapping[str, Mapping[str, torch.Tensor]]


def flat_masks(
    model: nn.Module, masks: Masks | str | PathLike[str] | None
) -> dict[str, torch.Tensor]:
    """`{module: {tensor: mask}}`, or a file of them, as `{"module.tensor": bool mask}`.

    Raises:
        MaskError: A name is unknown, a shape is wrong, or a mask is not made of 0 and 1, or all of
            it is of another form.
    """
    if masks is None:
        return {}
    if isinstance(masks, str | PathLike):
        from prune_core.masking.files import load_masks

        masks = load_masks(masks)
    named = named_tensors(model, every_name=True)
    flat: dict[str, torch.Tensor] = {}
    modules = [name for name, _ in named_modules(model, every_name=True)]
    for module, tensors in by_known_names(dict(_items(masks, "masks")), modules).items():
        for name, mask in _items(tensors, f"masks[{module!r}]"):
            full = f"{module}.{name}" if module else name
            if full not in named:
                raise MaskError(
                    f"The masks name {full!r}, which the model does not have."
                    f"{did_you_mean(full, named)}"
                )
            flat[full] = _checked(full, mask, named[full])
    return of_tied(named, flat)


def of_tied(
    named: Mapping[str, torch.Tensor], flat: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The same masks, where all of those that name one tensor hold for each of its names."""
    whole: dict[int, torch.Tensor] = {}
    for name, mask in flat.items():
        known = whole.get(id(named[name]))
        whole[id(named[name])] = mask if known is None else known & mask
    return {name: whole[id(named[name])] for name in flat}


def _items(masks: Any, where: str) -> ItemsView[str, Any]:
    if not isinstance(masks, Mapping):
        raise MaskError(
            f"{where} is of type {type(masks).__name__}; masks are given by module and by tensor, "
            "as in {'conv1': {'weight': mask}}."
        )
    return masks.items()


def _checked(name: str, mask: Any, tensor: torch.Tensor) -> torch.Tensor:
    if not isinstance(mask, torch.Tensor):
        raise MaskError(
            f"The mask of {name!r} is of type {type(mask).__name__}; it must be a tensor of 0 and "
            "1, in the shape of what it masks."
        )
    if mask.shape != tensor.shape:
        raise MaskError(
            f"The mask of {name!r} has shape {tuple(mask.shape)}, "
            f"but the tensor has shape {tuple(tensor.shape)}."
        )
    keep = mask if mask.dtype == torch.bool else mask != 0
    if keep is not mask and not torch.equal(keep.to(mask.dtype), mask):
        raise MaskError(f"The mask of {name!r} must be made of 0 and 1.")
    return in_rows(keep.detach().cpu())


def zeros_of(model: nn.Module, graph: Graph, masks: Mapping[str, torch.Tensor]) -> Zeros:
    """Which slices of which parameters are nothing but zeros once masked."""
    named = named_parameters(model, every_name=True)
    zeros: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}
    for value in graph.parameters:
        names = graph.tensors[value]
        covering = [masks[name] for name in names if name in masks]
        mask = reduce(torch.logical_and, covering) if covering else None
        for axis, zero in zeros_along(named[names[0]].detach(), mask).items():
            zeros[value, axis] = zero
    return zeros


def asked_for(graph: Graph, zeros: Zeros, masks: Mapping[str, torch.Tensor]) -> Zeros:
    """The zeros that come of the masks; without masks, all of them."""
    if not masks:
        return zeros
    found: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}
    for (value, axis), zero in zeros.items():
        for name in graph.tensors[value]:
            if name not in masks:
                continue
            masked = zero & ~held_on(masks[name], axis).cpu().numpy()
            if np.count_nonzero(masked):
                found[value, axis] = masked
    return found


def nested_masks(flat: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """`{module: {tensor: mask}}` again."""
    nested: dict[str, dict[str, torch.Tensor]] = {}
    for full, mask in flat.items():
        module, _, name = full.rpartition(".")
        nested.setdefault(module, {})[name] = mask
    return nested

"""Which slices of a mask hold anything: asked for every layer, so it must cost next to nothing."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

__all__ = ["all_of", "held_along", "not_zero_along", "whole_rows"]


def all_of(mask: Tensor) -> bool:
    """Return whether every value is True."""
    return bool(mask.numpy().all()) if mask.is_cpu else bool(mask.all())


def held_along(mask: Tensor) -> list[Tensor]:
    """Return for each axis which indices along it have a True anywhere.

    Two looks at the whole are enough for any number of axes: the first axis is told by one, and
    what the other leaves has only the others.

        >>> [held.tolist() for held in held_along(torch.tensor([[True, False], [False, False]]))]
        [[True, False], [True, False]]
    """
    shape, mask = mask.shape, _once(mask)
    found: list[Tensor] = []
    while mask.ndim > 1:
        flat = mask.reshape(mask.shape[0], prod(mask.shape[1:]))
        found.append(_any(flat, 1))
        mask = _any(flat, 0).reshape(mask.shape[1:])
    found += [mask] if mask.ndim else []
    return [held.expand(size) for held, size in zip(found, shape, strict=True)]


def not_zero_along(tensor: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """Return for each axis which indices along it hold anything but zeros once masked.

    Hardly a slice of a layer that is not masked is zero, and a few numbers of each tell so. Only
    where they do not, the mask is looked at, and the others where that leaves any.

        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        >>> [held.tolist() for held in not_zero_along(weight)]
        [[True, False], [True, False]]
    """
    mask = None if mask is None else mask.to(tensor.device)
    if tensor.ndim < 2:
        return held_along(_alive(tensor, mask))
    size = tensor.shape[0], prod(tensor.shape[1:])
    flat = tensor.reshape(size)
    hidden = None if mask is None else mask.reshape(size)
    rows = _held_rows(flat, hidden)
    first = torch.nonzero(rows)[:_SAMPLE, 0]
    others = _any(_alive(flat[first], None if hidden is None else hidden[first]), 0)
    doubtful = torch.nonzero(~others)[:, 0]
    if len(doubtful):
        under = None if hidden is None else hidden[:, doubtful]
        others[doubtful] = _any(_alive(flat[:, doubtful], under), 0)
    return [rows, *held_along(others.reshape(tensor.shape[1:]))]


_SAMPLE = 8
"""How many numbers of a slice are looked at before all of them are."""


def _held_rows(flat: Tensor, hidden: Tensor | None) -> Tensor:
    if hidden is not None and not hidden.stride(1):
        hidden = hidden[:, :1]  # a mask of whole rows
    few = _alive(flat[:, :_SAMPLE], None if hidden is None else hidden[:, :_SAMPLE])
    rows = _any(few, 1)
    doubtful = torch.nonzero(~rows)[:, 0]
    if hidden is not None and len(doubtful):
        doubtful = doubtful[_any(hidden[doubtful], 1)]
    if len(doubtful):
        under = None if hidden is None else hidden[doubtful]
        rows[doubtful] = _any(_alive(flat[doubtful], under), 1)
    return rows


def _alive(tensor: Tensor, mask: Tensor | None) -> Tensor:
    alive = tensor != 0
    return alive if mask is None else alive & mask


def _once(mask: Tensor) -> Tensor:
    """The mask with length one where it repeats itself, as one of whole channels does."""
    return mask[tuple(slice(0, 1) if step == 0 else slice(None) for step in mask.stride())]


def whole_rows(mask: Tensor) -> Tensor | None:
    """Return which rows are all True, if all others are all False; otherwise None."""
    if mask.ndim < 2:
        return mask if mask.ndim else None
    flat = mask.reshape(mask.shape[0], prod(mask.shape[1:]))
    rows = _any(flat, 1)
    return rows if not bool(_any(~flat[rows], 1).any()) else None


def _any(mask: Tensor, axis: int) -> Tensor:
    # numpy looks at booleans some fifty times faster than torch.
    return torch.from_numpy(mask.numpy().any(axis=axis)) if mask.is_cpu else mask.any(axis)

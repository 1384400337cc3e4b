"""Which slices of a mask hold anything: asked for every layer, so it must cost next to nothing."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

__all__ = ["all_of", "held_along", "whole_rows"]


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
    found: list[Tensor] = []
    while mask.ndim > 1:
        flat = mask.reshape(mask.shape[0], prod(mask.shape[1:]))
        found.append(_any(flat, 1))
        mask = _any(flat, 0).reshape(mask.shape[1:])
    return [*found, mask] if mask.ndim else found


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

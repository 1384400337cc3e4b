"""Which slices of a mask hold anything: asked for every layer, so it must cost next to nothing.

On the processor numpy looks at booleans some fifty times faster than torch, and begins sooner: it
stops in a row at the first that decides. So what follows works on arrays there, and on tensors
elsewhere.
"""

from __future__ import annotations

from math import prod
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "all_of",
    "count_alive",
    "covers_zeros",
    "full_rows",
    "held_along",
    "held_on",
    "in_rows",
    "is_in_rows",
    "not_zero_along",
    "whole_rows",
]


def all_of(mask: Tensor) -> bool:
    """Return whether every value is True."""
    return bool(_plain(_once(mask)).all())


def in_rows(mask: Tensor) -> Tensor:
    """Return the same mask, as a view of one column if it is made of whole rows.

    Whatever looks at such a view looks at one value of each row. It is to be read, not written to.

        >>> in_rows(torch.tensor([[True, True], [False, False]])).stride()
        (1, 0)
    """
    if mask.ndim < 2 or not mask.numel() or not all(mask.stride()):
        return mask
    rows = whole_rows(mask) if mask.dtype == torch.bool else None
    if rows is None:
        return mask
    return rows.reshape(-1, *[1] * (mask.ndim - 1)).expand(mask.shape)


def is_in_rows(mask: Tensor) -> bool:
    """Return whether a mask is seen to be made of whole rows, without a look at its values."""
    others = zip(mask.shape[1:], mask.stride()[1:], strict=True)
    return all(size == 1 or step == 0 for size, step in others)


def count_alive(tensor: Tensor, mask: Tensor | None = None) -> int:
    """Return how many numbers are not zero once masked; of rows that are masked none is read.

    >>> first = torch.tensor([[True, True], [False, False]])
    >>> count_alive(torch.tensor([[1.0, 0.0], [2.0, 3.0]]), first)
    1
    """
    if tensor.ndim < 2:
        return _count(_alive(_plain(tensor), None if mask is None else _plain(mask)))
    size = tensor.shape[0], prod(tensor.shape[1:])
    numbers = _plain(tensor).reshape(size)
    hidden = None if mask is None else _plain(mask).reshape(size)
    whole = hidden is not None and not _stride(hidden, 1)
    step = max(1, _PIECE // max(1, size[1]))
    alive = 0
    # In pieces, so that what is found of each is in no memory that has to be got first.
    for start in range(0, size[0], step):
        piece = numbers[start : start + step]
        under = None if hidden is None else hidden[start : start + step]
        if under is not None and whole:
            piece, under = piece[under[:, 0]], None
        alive += _count(_alive(piece, under))
    return alive


def held_along(mask: Tensor) -> list[Tensor]:
    """Return for each axis which indices along it have a True anywhere.

    Two looks at the whole are enough for any number of axes: the first axis is told by one, and
    what the other leaves has only the others.

        >>> [held.tolist() for held in held_along(torch.tensor([[True, False], [False, False]]))]
        [[True, False], [True, False]]
    """
    return _as_tensors(_held(_plain(_once(mask))), mask.shape)


def held_on(mask: Tensor, axis: int) -> Tensor:
    """Return which indices along one axis have a True anywhere.

    Args:
        mask: The mask, with at least one axis.
        axis: The axis.
    """
    plain = _plain(_once(mask).transpose(0, axis))
    return _as_tensors([plain.reshape(len(plain), -1).any(1)], (mask.shape[axis],))[0]


def not_zero_along(tensor: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """Return for each axis which indices along it hold anything but zeros once masked.

    Hardly a slice of a layer that is not masked is zero, and a few numbers of each tell so. Only
    where they do not, the mask is looked at, and the others where that leaves any.

        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        >>> [held.tolist() for held in not_zero_along(weight)]
        [[True, False], [True, False]]
    """
    numbers = _plain(tensor)
    hidden = None if mask is None else _plain(mask.to(tensor.device))
    if tensor.ndim < 2:
        return _as_tensors(_held(_alive(numbers, hidden)), tensor.shape)
    size = tensor.shape[0], prod(tensor.shape[1:])
    numbers = numbers.reshape(size)
    hidden = None if hidden is None else hidden.reshape(size)
    rows = _held_rows(numbers, hidden)
    first = _where(rows)[:_SAMPLE]
    others = _alive(numbers[first], None if hidden is None else hidden[first]).any(0)
    doubtful = _where(~others)
    if len(doubtful):
        under = None if hidden is None else hidden[:, doubtful]
        others[doubtful] = _alive(numbers[:, doubtful], under).any(0)
    return _as_tensors([rows, *_held(others.reshape(tensor.shape[1:]))], tensor.shape)


def covers_zeros(mask: Tensor, tensor: Tensor) -> bool:
    """Return whether a tensor is zero wherever a mask covers it."""
    return not count_alive(tensor, (~_once(mask)).expand(mask.shape))


def full_rows(mask: Tensor) -> Tensor:
    """Return which rows are all True.

    Args:
        mask: The mask, with at least one axis.
    """
    return mask if mask.ndim < 2 else _as_tensors([_flat(mask).all(1)], mask.shape[:1])[0]


def whole_rows(mask: Tensor) -> Tensor | None:
    """Return which rows are all True, if all others are all False; otherwise None."""
    if mask.ndim < 2:
        return mask if mask.ndim else None
    rows = _flat(mask).any(1)
    if bool((_flat(mask).all(1) != rows).any()):
        return None
    return _as_tensors([rows], mask.shape[:1])[0]


_IN_NUMPY = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128}
)
_PIECE = 1 << 18
_SAMPLE = 8
"""How many numbers of a slice are looked at before all of them are."""


def _plain(tensor: Tensor) -> Any:
    """What to look at: an array if numpy can see these numbers where they are."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.is_cpu and tensor.dtype in _IN_NUMPY
    return tensor.detach().numpy() if plain else tensor


def _flat(mask: Tensor) -> Any:
    """What to look at, with all but the first axis in one."""
    once = _once(mask)
    return _plain(once).reshape(once.shape[0], prod(once.shape[1:]))


def _held(mask: Any) -> list[Any]:
    """`held_along`, in which an axis of length one may stand for any length."""
    found = []
    while mask.ndim > 1:
        flat = mask.reshape(mask.shape[0], prod(mask.shape[1:]))
        found.append(flat.any(1))
        mask = flat.any(0).reshape(mask.shape[1:])
    return [*found, mask] if mask.ndim else found


def _held_rows(numbers: Any, hidden: Any) -> Any:
    if hidden is not None and not _stride(hidden, 1):
        hidden = hidden[:, :1]  # a mask of whole rows
    few = _alive(numbers[:, :_SAMPLE], None if hidden is None else hidden[:, :_SAMPLE])
    rows = few.any(1)
    doubtful = _where(~rows if hidden is None else hidden.any(1) & ~rows)
    if len(doubtful):
        under = None if hidden is None else hidden[doubtful]
        rows[doubtful] = _alive(numbers[doubtful], under).any(1)
    return rows


def _alive(numbers: Any, mask: Any) -> Any:
    alive = numbers != 0
    if isinstance(alive, Tensor):
        alive = _plain(alive)
    return alive if mask is None else alive & mask


def _count(flags: Any) -> int:
    # numpy counts booleans many times faster than torch.
    return int(np.count_nonzero(flags) if not isinstance(flags, Tensor) else flags.count_nonzero())


def _where(flags: Any) -> Any:
    return np.flatnonzero(flags) if isinstance(flags, np.ndarray) else flags.nonzero()[:, 0]


def _stride(mask: Any, axis: int) -> int:
    return cast("int", mask.strides[axis] if isinstance(mask, np.ndarray) else mask.stride(axis))


def _once(mask: Tensor) -> Tensor:
    """The mask with length one where it repeats itself, as one of whole channels does."""
    steps = mask.stride()
    if all(steps):
        return mask
    return mask[tuple(slice(0, 1) if step == 0 else slice(None) for step in steps)]


def _as_tensors(found: list[Any], shape: tuple[int, ...]) -> list[Tensor]:
    tensors = [torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in found]
    return [
        held if len(held) == size else held.expand(size)
        for held, size in zip(tensors, shape, strict=True)
    ]

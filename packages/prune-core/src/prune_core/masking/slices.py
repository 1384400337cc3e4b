"""Which slices of a mask hold anything: asked for every layer, so it must cost next to nothing.

On the processor numpy looks at booleans some fifty times faster than torch, and begins sooner: it
stops in a row at the first that decides. So what follows works on arrays there, and on tensors
elsewhere.
"""

from __future__ import annotations

from math import prod
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = [
    "all_of",
    "are_full_rows",
    "count_alive",
    "covers_zeros",
    "held_along",
    "held_on",
    "in_rows",
    "is_in_rows",
    "whole_rows",
    "zeros_along",
]

Flags = npt.NDArray[np.bool_]


def all_of(mask: Tensor) -> bool:
    """Return whether every value is True."""
    return _are_all(_once(_plain(mask)))


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
    numbers, hidden = _plain(tensor), None if mask is None else _plain(mask)
    if tensor.ndim < 2:
        return _count(_alive(numbers, hidden))
    size = tensor.shape[0], prod(tensor.shape[1:])
    if hidden is None and tensor.numel() <= _PIECE:
        return _count(_alive(numbers, None))
    numbers, hidden = numbers.reshape(size), None if hidden is None else hidden.reshape(size)
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
    return _as_tensors(_held(_once(_plain(mask))), mask.shape)


def held_on(mask: Tensor, axis: int) -> Tensor:
    """Return which indices along one axis have a True anywhere.

    Args:
        mask: The mask, with at least one axis.
        axis: The axis.
    """
    once = _once(_plain(mask)).swapaxes(0, axis)
    flat = once.reshape(len(once), prod(once.shape[1:]))
    held = flat[:, 0] & True if flat.shape[1] == 1 else flat.any(1)
    return _as_tensors([held], (mask.shape[axis],))[0]


def zeros_along(tensor: Tensor, mask: Tensor | None = None) -> dict[int, Flags]:
    """Return for each axis along which some indices hold nothing but zeros once masked, which.

    Hardly a slice of a layer that is not masked is zero, and a number or a few of each tell so.
    Only where they do not, the others are looked at.

        >>> weight = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
        >>> {axis: zero.tolist() for axis, zero in zeros_along(weight).items()}
        {1: [False, True]}
    """
    numbers = _plain(tensor)
    hidden = None if mask is None else _plain(mask.to(tensor.device))
    if tensor.ndim < 2:
        held = [_alive(numbers, hidden)] if tensor.ndim else []
    else:
        size = tensor.shape[0], prod(tensor.shape[1:])
        numbers = numbers.reshape(size)
        hidden = None if hidden is None else hidden.reshape(size)
        rows = _held_rows(numbers, hidden)
        others = _held_columns(numbers, hidden, rows)
        # Where each holds something, so does each index of the axes that they are made of.
        whole = len(others) and _are_all(others)
        held = [rows] if whole else [rows, *_held(others.reshape(tensor.shape[1:]))]
    return {axis: _on_cpu(~each) for axis, each in enumerate(held) if not _are_all(each)}


def covers_zeros(mask: Tensor, tensor: Tensor) -> bool:
    """Return whether a tensor is zero wherever a mask covers it."""
    numbers, shown = _plain(tensor), _plain(mask)
    if not (_in_one_piece(numbers) and _in_one_piece(shown)):
        return not count_alive(tensor, (~cast("Tensor", _once(mask))).expand(mask.shape))
    if _are_all(shown):
        return True
    numbers, shown = numbers.reshape(-1), shown.reshape(-1)
    pieces = (slice(start, start + _PIECE) for start in range(0, len(numbers), _PIECE))
    return not any(_count(_alive(numbers[at], None) > shown[at]) for at in pieces)


def are_full_rows(mask: Tensor, rows: npt.NDArray[np.int64] | None = None) -> bool:
    """Return whether all rows are all True, or all of some rows.

    Args:
        mask: The mask, with at least one axis.
        rows: The numbers of these rows.

    >>> are_full_rows(torch.tensor([[True, False], [True, True]]), np.array([1]))
    True
    """
    flat = _flat(mask)
    if rows is None:
        return _are_all(flat)
    if len(flat) == 1:  # of a mask that repeats its row
        rows = rows[:1] * 0
    return _are_all(flat[rows if isinstance(flat, np.ndarray) else torch.from_numpy(rows)])


def whole_rows(mask: Tensor) -> Tensor | None:
    """Return which rows are all True, if all others are all False; otherwise None."""
    if mask.ndim < 2:
        return mask if mask.ndim else None
    flat = _flat(mask)
    width = flat.shape[1]
    if width and len(flat) and isinstance(flat, np.ndarray) and np.count_nonzero(flat[0]) % width:
        return None  # single values are masked, as the first row tells most often
    if not 0 < width < _LONG:
        rows = flat.any(1)
        whole = _are_all(flat.all(1) == rows)
    elif width % 8 or not isinstance(flat, np.ndarray) or not flat.flags.c_contiguous:
        rows = flat[:, 0] & True  # a copy
        whole = _are_all(flat == rows[:, None])
    else:
        # Eight booleans are read as one number. In rows of this length no byte of a sum runs over,
        # and einsum takes half as long as sum.
        sums = np.einsum("ij->i", flat.view(np.uint64))
        rows = sums == width // 8 * 0x0101010101010101
        whole = _count(sums) == _count(rows)
    return _as_tensors([rows], mask.shape[:1])[0] if whole else None


_IN_NUMPY = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float32, torch.float64, torch.complex64, torch.complex128}
)
_HALF = frozenset({torch.float16, torch.bfloat16})
_PIECE = 1 << 18
_LARGE = 1 << 20
_SAMPLES = 1, 8
"""How many numbers of a slice are looked at before all of them are."""
_LONG = 1024
"""Rows of that length end the search soon enough, so that a look at each costs less than at all."""


def _plain(tensor: Tensor) -> Any:
    """What to look at: an array if numpy can see these numbers where they are.

    Of numbers in half precision these are the bits, with which numpy is quicker: see `_alive`.
    """
    if type(tensor) not in (Tensor, nn.Parameter) or not tensor.is_cpu:
        return tensor
    if tensor.dtype in _HALF:
        return _array(tensor.detach().view(torch.int16)).view(np.uint16)
    if tensor.dtype not in _IN_NUMPY:
        return tensor
    return _array(tensor.detach() if tensor.requires_grad else tensor)


def _array(tensor: Tensor) -> Any:
    """The same memory as an array.

    `numpy()` marks it for good as memory that an array may share. Who would give it back while it
    can be had again needs to know that none does, and a large one is worth a longer way.
    """
    if tensor.nbytes < _LARGE or tensor.dtype == torch.bool:
        return tensor.numpy()
    return np.from_dlpack(tensor)


def _in_one_piece(numbers: Any) -> bool:
    return isinstance(numbers, np.ndarray) and numbers.flags.c_contiguous


def _flat(mask: Tensor) -> Any:
    """What to look at, with all but the first axis in one."""
    once = _once(_plain(mask))
    return once.reshape(once.shape[0], prod(once.shape[1:]))


def _held(mask: Any) -> list[Any]:
    """`held_along`, in which an axis of length one may stand for any length."""
    found = []
    while mask.ndim > 1:
        flat = mask.reshape(mask.shape[0], prod(mask.shape[1:]))
        found.append(flat.any(1))
        mask = flat.any(0).reshape(mask.shape[1:])
    return [*found, mask] if mask.ndim else found


def _held_rows(numbers: Any, hidden: Any) -> Any:
    """Which rows hold anything."""
    if hidden is not None and not _stride(hidden, 1):
        hidden = hidden[:, :1]  # a mask of whole rows
    rows = _alive(numbers[:, :1], None if hidden is None else hidden[:, :1]).any(1)
    doubtful = _where(~rows if hidden is None else hidden.any(1) & ~rows)
    for width in (*_SAMPLES[1:], None):
        if not len(doubtful):
            break
        under = None if hidden is None else hidden[doubtful, :width]
        found = _alive(numbers[doubtful, :width], under).any(1)
        rows[doubtful] = found
        doubtful = doubtful[~found]
    return rows


def _held_columns(numbers: Any, hidden: Any, rows: Any) -> Any:
    """Which columns hold anything, where it is known which rows do."""
    first = _where(rows)
    for height in _SAMPLES:
        few = first[:height]
        columns = _alive(numbers[few], None if hidden is None else hidden[few]).any(0)
        if _are_all(columns):
            return columns
    doubtful = _where(~columns)
    if len(first) > _SAMPLES[-1]:
        under = None if hidden is None else hidden[:, doubtful]
        columns[doubtful] = _alive(numbers[:, doubtful], under).any(0)
    return columns


def _alive(numbers: Any, mask: Any) -> Any:
    bits = isinstance(numbers, np.ndarray) and numbers.dtype == np.uint16
    alive = (numbers << 1 if bits else numbers) != 0  # without the sign: -0.0 is zero, too
    if isinstance(alive, Tensor):
        alive = _plain(alive)
    return alive if mask is None else alive & mask


def _count(flags: Any) -> int:
    # numpy counts booleans many times faster than torch.
    return int(np.count_nonzero(flags) if not isinstance(flags, Tensor) else flags.count_nonzero())


def _are_all(flags: Any) -> bool:
    if isinstance(flags, np.ndarray):
        return bool(np.count_nonzero(flags) == flags.size)  # `all` takes four times as long
    return bool(flags.all())


def _where(flags: Any) -> Any:
    return flags.nonzero()[0] if isinstance(flags, np.ndarray) else flags.nonzero()[:, 0]


def _on_cpu(flags: Any) -> Flags:
    return flags if isinstance(flags, np.ndarray) else flags.cpu().numpy()


def _stride(mask: Any, axis: int) -> int:
    return cast("int", mask.strides[axis] if isinstance(mask, np.ndarray) else mask.stride(axis))


def _once(mask: Any) -> Any:
    """The mask with length one where it repeats itself, as one of whole channels does."""
    steps = mask.strides if isinstance(mask, np.ndarray) else mask.stride()
    if all(steps):
        return mask
    return mask[tuple([slice(0, 1) if step == 0 else slice(None) for step in steps])]


def _as_tensors(found: list[Any], shape: tuple[int, ...]) -> list[Tensor]:
    tensors = [torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in found]
    return [
        held if len(held) == size else held.expand(size)
        for held, size in zip(tensors, shape, strict=True)
    ]

"""Choose the smallest of many scores, exactly, without putting them into one tensor.

A floating-point number, read as the integer with the same bits, sorts as the number does (after
one fold for the negative half). So the k-th smallest score can be found digit by digit: count how
often each value of the leading sixteen bits occurs, keep the one that holds the k-th score, go on
with the next sixteen bits. Single precision needs two readings of the scores and the answer a
third, each in pieces that fit a processor's cache, and nothing is ever sorted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar, overload

import torch
from torch import Tensor

from prune_core.errors import ConfigError

__all__ = ["smallest"]

_T = TypeVar("_T")

_DIGIT = 16
_BINS = 1 << _DIGIT
# An accelerator wants more work a call than a processor's cache holds.
_PIECE = 1 << 18
_PIECE_ON_DEVICE = 1 << 24

_BITS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


@overload
def smallest(
    scores: Mapping[str, Tensor],
    k: int,
    *,
    among: Mapping[str, Tensor | None] | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]: ...
@overload
def smallest(
    scores: Sequence[Tensor],
    k: int,
    *,
    among: Sequence[Tensor | None] | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> list[Tensor]: ...
def smallest(
    scores: Mapping[str, Tensor] | Sequence[Tensor],
    k: int,
    *,
    among: Mapping[str, Tensor | None] | Sequence[Tensor | None] | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor] | list[Tensor]:
    """Mark exactly the `k` smallest scores of all tensors together.

    Equal scores are taken in the order given: earlier tensors first, and within a tensor in
    row-major order. `-0.0` equals `0.0`. Tensors may differ in shape, type and device, and may be
    views; scores of different types are compared in the type that torch promotes them to.

    Args:
        scores: the tensors to choose from, named or in a row.
        k: how many to mark, from 0 to the number of scores.
        among: for each tensor a boolean tensor of its shape that says which of its scores take
            part, or None where all do. Scores that take no part are never marked.
        transform: applied to the scores piece by piece before they are compared, an elementwise
            function such as `torch.abs`; so that not all scores need to be transformed at once.

    Returns:
        A boolean tensor for each tensor of `scores`, in the same form, True at the `k` smallest.

    Raises:
        ConfigError: `k` is not possible, or a score is NaN.

    >>> smallest([torch.tensor([3.0, 1.0]), torch.tensor([2.0, 9.0])], 2)
    [tensor([False,  True]), tensor([ True, False])]
    >>> smallest({"a": torch.tensor([-3.0, 1.0])}, 1, transform=torch.abs)
    {'a': tensor([False,  True])}
    """
    named = scores if isinstance(scores, Mapping) else _numbered(scores)
    allowed = among if isinstance(among, Mapping) else _numbered(among or [])
    if strangers := allowed.keys() - named.keys():
        raise ConfigError(
            f"`among` names {', '.join(sorted(strangers))}, which `scores` does not have."
        )
    items = [_Scores(name, t, allowed.get(name), transform) for name, t in named.items()]
    marks = _marked(items, k)
    return dict(zip(named, marks, strict=True)) if isinstance(scores, Mapping) else marks


def _numbered(row: Sequence[_T]) -> dict[str, _T]:
    return {f"scores[{i}]": entry for i, entry in enumerate(row)}


@dataclass(frozen=True)
class _Scores:
    """One tensor of scores, and which of them take part."""

    name: str
    tensor: Tensor
    among: Tensor | None
    transform: Callable[[Tensor], Tensor] | None

    def __post_init__(self) -> None:
        if self.among is not None and self.among.shape != self.tensor.shape:
            raise ConfigError(
                f"`among` of {self.name} has shape {tuple(self.among.shape)}; it must have the "
                f"scores' own shape {tuple(self.tensor.shape)}."
            )

    @property
    def dtype(self) -> torch.dtype:
        sample = torch.empty(0, dtype=self.tensor.dtype, device="cpu")
        dtype = (sample if self.transform is None else self.transform(sample)).dtype
        if dtype.is_complex:
            raise ConfigError(
                f"{self.name} is complex ({dtype}), and complex numbers have no order; give "
                "`transform=torch.abs`, or real scores."
            )
        if dtype.is_floating_point:
            return dtype if dtype in _BITS else torch.float32
        return torch.int64

    def count(self) -> int:
        if self.among is None:
            return self.tensor.numel()
        return int(self.among.count_nonzero())

    def pieces(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the scores flat, in row-major order, each piece with its part of `among`."""
        tensors = [self.tensor.detach()] + ([] if self.among is None else [self.among])
        size = _PIECE if self.tensor.device.type == "cpu" else _PIECE_ON_DEVICE
        for values, *rest in _flat_pieces(tensors, size):
            if self.transform is not None:
                values = self.transform(values)
            yield values.to(dtype), (rest[0] if rest else None)

    def participants(self, dtype: torch.dtype) -> Iterator[Tensor]:
        for values, among in self.pieces(dtype):
            yield values if among is None else values[among]


def _flat_pieces(tensors: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Cut tensors of one shape into the same flat pieces, copying at most a piece at a time."""
    first = tensors[0]
    if first.numel() == 0:
        return
    if all(t.is_contiguous() for t in tensors):
        yield from map(list, zip(*(torch.split(t.view(-1), size) for t in tensors), strict=True))
    elif first.numel() <= size:
        yield [t.reshape(-1) for t in tensors]
    else:
        rows = max(1, size * len(first) // first.numel())
        for block in zip(*(torch.split(t, rows) for t in tensors), strict=True):
            yield from _flat_pieces([t[0] if rows == 1 else t for t in block], size)


@torch.no_grad()
def _marked(items: Sequence[_Scores], k: int) -> list[Tensor]:
    total = sum(item.count() for item in items)
    if not 0 <= k <= total:
        raise ConfigError(
            f"Cannot choose the {k} smallest of {total} scores; k must be from 0 to {total}."
        )
    marks = [torch.zeros(i.tensor.shape, dtype=torch.bool, device=i.tensor.device) for i in items]
    if total == 0:
        return marks
    dtype = reduce(torch.promote_types, [item.dtype for item in items])
    threshold, ties = _threshold(items, k, dtype)
    if k == 0:
        return marks
    for item, mark in zip(items, marks, strict=True):
        start = 0
        for values, among in item.pieces(dtype):
            part = mark.view(-1)[start : start + len(values)]
            start += len(values)
            torch.lt(values, threshold, out=part)
            if ties:
                equal = values == threshold if among is None else (values == threshold) & among
                where = equal.nonzero().view(-1)[:ties]
                part[where] = True
                ties -= len(where)
            if among is not None:
                part &= among
    return marks


def _threshold(items: Sequence[_Scores], k: int, dtype: torch.dtype) -> tuple[float, int]:
    """Find the k-th smallest score, and how many that equal it are among the k smallest."""
    width = torch.iinfo(_BITS.get(dtype, torch.int64)).bits
    prefix, rank = 0, k
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        leading = shift == width - _DIGIT
        counts = torch.zeros(_BINS, dtype=torch.int64, device="cpu")
        for item in items:
            for values in item.participants(dtype):
                if leading and dtype.is_floating_point and values.isnan().any():
                    raise ConfigError(
                        f"{item.name} contains NaN, which is neither small nor large; find where "
                        "it comes from, or leave that tensor out."
                    )
                keys = _keys(values)
                if leading:
                    digits = (keys >> shift) + _BINS // 2
                else:
                    keys = keys[(keys >> (shift + _DIGIT)) == prefix]
                    digits = (keys >> shift) & (_BINS - 1)
                counts += torch.bincount(digits, minlength=_BINS).cpu()
        upto = counts.cumsum(0)
        digit = int(torch.searchsorted(upto, max(rank, 1)))
        rank -= int(upto[digit] - counts[digit])
        prefix = digit - _BINS // 2 if leading else (prefix << _DIGIT) | digit
    return _value(prefix, dtype), rank


def _keys(values: Tensor) -> Tensor:
    """Turn numbers into integers of the same order, the two zeros into one."""
    if not values.is_floating_point():
        return values
    bits = values.view(_BITS[values.dtype])
    lowest = torch.iinfo(bits.dtype).min
    if bits.dtype == torch.int16:
        bits = bits.to(torch.int32)
    return torch.where(bits < 0, lowest - bits, bits)


def _value(key: int, dtype: torch.dtype) -> float:
    """Turn an integer of `_keys` back into its number."""
    if not dtype.is_floating_point:
        return key
    bits = _BITS[dtype]
    folded = key if key >= 0 else torch.iinfo(bits).min - key
    return float(torch.tensor(folded, dtype=bits, device="cpu").view(dtype))

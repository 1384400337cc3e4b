"""What holds of a value for every input: which indices are kept, and which numbers are known.

An array of what is known has NaN for all other numbers. It broadcasts to the value that it tells
of: along an axis of length one, what is known is the same at all places.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prune_verify.vocabulary import FUNCTIONS, STOPS, Array

__all__ = ["Kept", "Value", "computed", "derived", "even", "part", "product"]

Kept = dict[int, Array]


class Value(NamedTuple):
    """What holds of a value for every input.

    `shape` is that of the original, and `kept` has the indices that the small model keeps of each
    axis that lost some. `known` broadcasts to the shape: a number where it is the same for every
    input, NaN elsewhere. `folded` is a bias of the small model that took up constants.
    """

    shape: tuple[int, ...]
    kept: Kept
    known: Array
    folded: Array | None = None

    def at(self, axis: int) -> Array:
        """The indices of an axis that are kept."""
        return self.kept[axis] if axis in self.kept else np.arange(self.shape[axis])

    def gone(self, axis: int) -> Array:
        """The indices of an axis that were removed."""
        left = np.zeros(self.shape[axis], bool)
        left[self.at(axis)] = True
        return np.flatnonzero(~left)

    @property
    def small(self) -> tuple[int, ...]:
        """The shape in the small model."""
        return tuple(len(self.kept.get(a, range(n))) for a, n in enumerate(self.shape))

    def wide(self, *axes: int) -> Array:
        """What is known, written out along some axes."""
        sizes = [self.shape[a] if a in axes else n for a, n in enumerate(self.known.shape)]
        return np.broadcast_to(self.known, sizes)

    def across(self, axes: Collection[int]) -> "Value":
        """Shape and kept indices of what has one number in the place of each row along axes."""
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(self.shape))
        kept = {axis: each for axis, each in self.kept.items() if axis not in axes}
        return Value(shape, kept, np.array(np.nan))


def derived(shape: Sequence[int], kept: Kept, known: Any = np.nan) -> Value:
    """A value of which this follows."""
    return Value(tuple(shape), kept, compact(known, len(shape)))


def compact(numbers: Any, ndim: int) -> Array:
    """The same with length one along axes along which it does not differ."""
    known: Array = np.asarray(numbers)
    if np.isnan(known.flat[:1]).any() and np.isnan(known).all():
        known = np.array(np.nan)
    known = known.reshape((1,) * (ndim - known.ndim) + known.shape)
    for axis, size in enumerate(known.shape):
        first = along(known, axis, slice(1))
        # A few places tell most arrays apart.
        steps = (-(-size // 8), 1) if size > 1 else ()
        looks = (along(known, axis, slice(None, None, step)) for step in steps)
        if all(((x == first) | (np.isnan(x) & np.isnan(first))).all() for x in looks):
            known = first
    return known


def along(known: Array, axis: int, chosen: Any) -> Array:
    """Some of the indices of an axis."""
    if isinstance(chosen, slice):
        return known[(slice(None),) * axis + (chosen,)]
    # `take` is fast where it meets memory in its order.
    order = sorted(range(known.ndim), key=lambda each: -known.strides[each])
    found: Array = known.transpose(order).take(chosen, order.index(axis))
    return found.transpose(np.argsort(order))


def part(known: Array, kept: Kept) -> Array:
    """What is known at the kept indices of axes."""
    for axis, indices in kept.items():
        known = along(known, axis, indices) if known.shape[axis] != 1 else known
    return known


def even(known: Array, axes: Iterable[int]) -> Array:
    """The number of each row that is the same number throughout, and NaN of other rows."""
    first = known
    for axis in axes:
        first = along(first, axis, slice(1))
    return np.where((known == first).all(tuple(axes), keepdims=True), first, np.nan)


def computed(function: str, told: Sequence[Any]) -> Array:
    """A function of what is known: a number where it is the same for every input, NaN elsewhere."""
    given = [np.asarray(each, float) if isinstance(each, np.ndarray) else each for each in told]
    if function not in FUNCTIONS:
        return np.array(np.nan)
    result = np.asarray(FUNCTIONS[function](*given), float)
    if function in ("mul", "div"):  # nothing, times or divided by something finite
        one, two = map(np.asarray, given)
        zero = (one == 0) & ~np.isinf(two) & ((two != 0) | (function == "mul"))
        zero |= (two == 0) & ~np.isinf(one) & (function == "mul")
        return np.where(zero, 0.0, result)
    if function == "where":
        chosen = np.where(np.isnan(given[0]), np.nan, result)
        return np.where(np.asarray(given[1]) == given[2], given[1], chosen)
    arrays = [each for each in given if isinstance(each, np.ndarray)]
    unknown = sum((np.isnan(each) for each in arrays), np.array(False))
    # Rounding may make a zero of what is none, and a sign of what is none.
    tiny = sum(((each != 0) & (np.abs(each) < 1e-6) for each in arrays), np.array(False))
    some = sum((each != 0 for each in arrays), np.array(False))
    doubtful = (result == 0) & (tiny if function in STOPS else some)
    return np.where(unknown | doubtful, np.nan, result)


def product(left: Array, right: Array) -> Array:
    """A product of matrices: a sum is known if each of its terms is, or has a factor of zero."""
    lead = tuple(range(left.ndim - 1))
    blank: Array = np.asarray(np.isnan(left).all(lead))  # terms that only `right` can tell
    met: Array = right if blank.all() else (right != 0) & blank[:, None]
    unknown = np.asarray(met.any(-2, keepdims=True))
    rest = ~blank & left.any(lead)
    left, right = left[..., rest], right[..., rest, :]
    nans = [np.isnan(each).astype(np.float32) for each in (left, right)]
    some = [(each != 0).astype(np.float32) for each in (left, right)]
    result = np.nan_to_num(left).astype(float) @ np.nan_to_num(right).astype(float)
    doubtful = nans[0] @ some[1] + some[0] @ nans[1] + (some[0] @ some[1]) * (result == 0)
    return np.where(unknown | (doubtful > 0), np.nan, result)

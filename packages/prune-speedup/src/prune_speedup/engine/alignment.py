"""Values beside each other: what meets along each axis, and what is known of the result."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import NamedTuple, cast

import numpy as np

from prune_speedup.engine.labels import Array
from prune_speedup.engine.values import (
    CONSTANT,
    UNIFORM,
    UNKNOWN,
    ZERO,
    Group,
    Pending,
    Value,
    at_first,
    mixed,
    one_of,
)

__all__ = [
    "TIED",
    "Combine",
    "Letters",
    "Row",
    "ZeroTest",
    "arranged",
    "combined",
    "follows",
    "lengths_asked",
    "letters_of",
    "result_of",
    "rows_of",
    "side_by_side",
    "without",
]

ZeroTest = Callable[[Sequence[bool]], bool]
"""Whether a result is zero where those of its operands are that are marked."""

Combine = Callable[[Sequence[int]], int]
"""What is known of a result where this is known of its operands."""


TIED = "tied to something that stays"
"""Why labels are what they are after they have met others."""

Row = list[Group | None]
"""The groups of several operands along one axis; `None` where an operand has none there."""

_KINDS, _AT_ONCE = UNKNOWN + 1, 5


def rows_of(operands: Sequence[Value], places: Sequence[Sequence[int]]) -> dict[int, Row] | None:
    """What meets along each axis of a result, the axis that is met last at the end.

    It is `None` where a group runs along several axes: they have to be looked at together then, by
    `clusters`. Most often every group has an axis of its own.

    Args:
        operands: They have broadcast to the result.
        places: For each operand the axes of the result that its own are.
    """
    rows: dict[int, Row] = {}
    for at, (operand, axes) in enumerate(zip(operands, places, strict=True)):
        for group in operand.groups:
            if len(group.axes) != 1:
                return None
            axis = axes[group.axes[0]]
            row = rows.pop(axis, None) or [None] * len(operands)
            row[at] = group
            rows[axis] = row
    return rows


@lru_cache(maxsize=4096)
def lengths_asked(
    operands: tuple[tuple[tuple[int, ...], frozenset[int]], ...],
    places: tuple[Sequence[int], ...],
    shape: tuple[int, ...],
) -> tuple[tuple[frozenset[int], ...], frozenset[int]] | None:
    """The axes of a result whose length each operand asks for, and those that are left free.

    Args:
        operands: The shape of each, and its free axes.
        places: For each operand the axes of the result that its own are.
        shape: That of the result. Where an operand does not broadcast to it, or has two axes in the
            place of one, `None` is returned.
    """
    asked: list[frozenset[int]] = []
    for (sizes, loose), axes in zip(operands, places, strict=True):
        along = list(zip(sizes, axes, strict=True))
        if any(axis < 0 or size not in (1, shape[axis]) for size, axis in along):
            return None
        if len(set(axes)) < len(axes):
            return None
        held = [axis for own, (size, axis) in enumerate(along) if size != 1 and own not in loose]
        asked.append(frozenset(held))
    return tuple(asked), frozenset(range(len(shape))).difference(*asked)


class Letters(NamedTuple):
    """An equation such as `bij,jk->bik`, in the space of all its letters, here `bikj`.

    Attributes:
        terms: The letters of each operand.
        space: Those of the result first, and then those that are summed over.
        places: Where in the space the axes of each operand are.
        kept: How many are in the result.
    """

    terms: tuple[str, ...]
    space: str
    places: tuple[tuple[int, ...], ...]
    kept: int


@cache
def letters_of(equation: str) -> Letters:
    """Read an equation."""
    sides, result = equation.split("->")
    terms = tuple(sides.split(","))
    letters = dict.fromkeys("".join(terms))
    space = result + "".join(letter for letter in letters if letter not in result)
    places = tuple(tuple(map(space.index, term)) for term in terms)
    return Letters(terms, space, places, len(result))


def follows(other: Group, group: Group) -> bool:
    """Whether the labels of one group have everywhere the same label of another beside them.

    So `[0, 1, 0, 1]` and `[4, 5, 4, 5]`: what is one number for each of the one's and of the
    other's is one for both. With `[4, 5, 6, 7]` the two places of 0 are no longer equal.
    """
    if other is group:
        return True
    labels, beside = group.line, other.line
    if labels is beside:
        return True
    if len(labels) != len(beside):
        return False
    if np.count_nonzero(labels[1:] > labels[:-1]) == len(labels) - 1:
        return True  # none of them stands twice, which is most often so
    _, first, where = np.unique(labels, return_index=True, return_inverse=True)
    return bool((beside == beside[first[where.ravel()]]).all())


def combined(known: Sequence[Array | int], combine: Combine) -> Array | int:
    """What is known of a result, position by position, from what is known of the operands.

    Of most operands the same is known everywhere, and the test runs once:

        combined([ZERO, UNKNOWN], ...)             ZERO times anything:  ZERO
        combined([[0 0 3 3], UNKNOWN], ...)        once for 0, once for 3:  [0 0 3 3]
    """
    varied = [at for at, each in enumerate(known) if not isinstance(each, int)]
    if not varied:
        return combine(cast("Sequence[int]", known))
    # Each combination that occurs gets a number, a few operands at a time: there may be many, such
    # as the steps of a sequence, and few combinations, for which the test runs once.
    numbered: Array | int = 0
    patterns, occurs = [list[int]()], [0]
    for start in range(0, len(varied), _AT_ONCE):
        few = varied[start : start + _AT_ONCE]
        if start:
            numbered = _table(occurs, range(len(occurs)))[numbered]
        for at in few:
            numbered = numbered * _KINDS + known[at]
        occurs = np.bincount(cast("Array", numbered).ravel()).nonzero()[0].tolist()
        steps = [_KINDS**place for place in reversed(range(len(few)))]
        patterns = [
            patterns[code // (steps[0] * _KINDS)] + [code // step % _KINDS for step in steps]
            for code in occurs
        ]
    results = []
    told = cast("list[int]", list(known))
    for pattern in patterns:
        for at, state in zip(varied, pattern, strict=True):
            told[at] = state
        results.append(combine(told))
    return results[0] if len(set(results)) == 1 else _table(occurs, results)[numbered]


def _table(places: Sequence[int], entries: Sequence[int]) -> Array:
    """An array with these entries at these places."""
    table = np.zeros(1 + max(places, default=0), dtype=np.int64)
    table[places] = entries
    return table


def side_by_side(states: Array | int) -> Array | int:
    """What is known where numbers of these kinds stand side by side, as by `mixed`."""
    if isinstance(states, int):
        return CONSTANT if states == UNIFORM else states
    return one_of(mixed(states))


def result_of(operands: Sequence[int], zero: ZeroTest) -> int:
    """Zero by the test, and else what is known of the weakest operand."""
    if zero([state == ZERO for state in operands]):
        return ZERO
    return max(UNIFORM, *operands)


def without(
    value: Value, groups: list[Group], over: set[int], *, keep: bool, pending: tuple[Pending, ...]
) -> Value:
    """The value without some axes, or with length one there."""
    stay = [axis for axis in range(value.ndim) if axis not in over]
    if keep:
        shape = tuple([1 if axis in over else size for axis, size in enumerate(value.shape)])
        free = value.free - over
    else:
        shape = tuple([value.shape[axis] for axis in stay])
        free = frozenset([stay.index(axis) for axis in value.free if axis not in over])
    made: list[Group] = []
    for group in groups:
        if len(group.axes) == 1 and group.axes[0] not in over:
            axis = group.axes[0]
            made.append(group.at(axis if keep else stay.index(axis), shape))
        else:
            codes = at_first(group.codes, over)
            made.append(Group(codes if keep else codes.squeeze(tuple(over))))
    return Value(shape, tuple(made), free, pending=pending)


def arranged(value: Value, letters: str, space: str) -> Value:
    """The value with its axes in the order of `space`, length one where it has none."""
    order = [letters.index(letter) for letter in space if letter in letters]
    slots = [slot for slot, letter in enumerate(space) if letter in letters]
    shape = [1] * len(space)
    for slot, axis in zip(slots, order, strict=True):
        shape[slot] = value.shape[axis]
    lift = tuple(slice(None) if letter in letters else None for letter in space)
    groups = tuple(Group(group.codes.transpose(order)[lift]) for group in value.groups)
    free = frozenset(slot for slot, axis in zip(slots, order, strict=True) if axis in value.free)
    return Value(tuple(shape), groups, free, value.constant, value.pending, value.zero)

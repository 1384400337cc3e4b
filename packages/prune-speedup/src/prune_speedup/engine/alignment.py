"""Values beside each other: broadcast, cut by the same axes, and what is known of the result."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from prune_speedup.engine.labels import Array
from prune_speedup.engine.values import (
    UNIFORM,
    UNKNOWN,
    ZERO,
    Group,
    Pending,
    Value,
    at_first,
    expanded,
)

__all__ = [
    "Combine",
    "ZeroTest",
    "arranged",
    "broadcast",
    "clusters",
    "follows",
    "result_of",
    "states_of",
    "without",
]

ZeroTest = Callable[[Sequence[bool]], bool]
"""Whether a result is zero where those of its operands are that are marked."""

Combine = Callable[[Sequence[int]], int]
"""What is known of a result where this is known of its operands."""


_KINDS, _AT_ONCE = UNKNOWN + 1, 5


def follows(other: Group, group: Group) -> bool:
    """Whether the labels of one group have everywhere the same label of another beside them.

    So `[0, 1, 0, 1]` and `[4, 5, 4, 5]`: what is one number for each of the one's and of the
    other's is one for both. With `[4, 5, 6, 7]` the two places of 0 are no longer equal.
    """
    if other is group:
        return True
    labels, beside = group.compact().ravel(), other.compact().ravel()
    if len(labels) != len(beside):
        return False
    if (labels[1:] > labels[:-1]).all():
        return True  # none of them stands twice, which is most often so
    _, first, where = np.unique(labels, return_index=True, return_inverse=True)
    return bool((beside == beside[first[where.ravel()]]).all())


def broadcast(value: Value, shape: tuple[int, ...]) -> tuple[Value, tuple[Group, ...]]:
    """A value with as many axes as a shape, and its groups as long as that."""
    lead = len(shape) - value.ndim
    if not lead and value.shape == shape:
        return value, value.groups
    groups = tuple(Group(expanded(group.codes, shape)) for group in value.groups)
    sizes = (1,) * lead + value.shape
    free = frozenset(axis + lead for axis in value.free)
    return replace(value, shape=sizes, groups=groups, free=free), groups


def clusters(operands: list[tuple[Value, tuple[Group, ...]]]) -> list[frozenset[int]]:
    """Sets of axes that are linked by groups of any operand.

    One operand is cut along axes 1 and 2 together, the other along 2 alone, and along 3: what
    becomes of 1 and 2 has to be decided in one go, and 3 is a matter of its own.
    """
    clusters: list[frozenset[int]] = []
    for _, groups in operands:
        for group in groups:
            axes = frozenset(group.axes)
            touching = [cluster for cluster in clusters if cluster & axes]
            clusters = [cluster for cluster in clusters if not cluster & axes]
            clusters.append(axes.union(*touching))
    return clusters


def states_of(members: list[tuple[Value, list[Group]]], combine: Combine) -> Array:
    """What is known of a result, position by position, from what is known of the operands."""
    known: list[Array] = []
    for value, groups in members:
        base = np.array(value.state, dtype=np.int64)
        own = [group.states() for group in groups]
        known.append(reduce(np.maximum, own) if own else base)
    # Each combination that occurs gets a number, a few operands at a time: there may be many, such
    # as the steps of a sequence, and few combinations, for which the test runs once.
    combined, patterns = np.zeros((), dtype=np.int64), [list[int]()]
    for start in range(0, len(known), _AT_ONCE):
        few = known[start : start + _AT_ONCE]
        for each in few:
            combined = combined * _KINDS + each
        occurs = np.flatnonzero(np.bincount(combined.ravel()))
        steps = [_KINDS**place for place in range(len(few))]
        patterns = [
            patterns[code // (steps[-1] * _KINDS)]
            + [code // step % _KINDS for step in reversed(steps)]
            for code in occurs.tolist()
        ]
        combined = np.searchsorted(occurs, combined) if len(occurs) > 1 else np.zeros(1, np.int64)
    results = np.array([combine(pattern) for pattern in patterns], dtype=np.int64)
    return results[combined]


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
    made: list[Group] = []
    for group in groups:
        codes = at_first(group.codes, over)
        made.append(Group(codes if keep else codes.squeeze(tuple(over))))
    if keep:
        shape = tuple(1 if axis in over else size for axis, size in enumerate(value.shape))
        return Value(shape, tuple(made), value.free - over, pending=pending)
    shape = tuple(value.shape[axis] for axis in stay)
    free = frozenset(stay.index(axis) for axis in value.free - over)
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
    return replace(value, shape=tuple(shape), groups=groups, free=free)

"""Groups along several axes: which have to be looked at together, and what they can be cut by.

Heads and features of heads are one group of `(8, 4)`, a bias of the features is one of `(4,)`:

    heads x features      axes 0 and 1
    features                     axis 1

They share axis 1, so both are one cluster. Most values have groups of one axis each, and are
aligned axis by axis instead, by `Flow.align`.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from prune_speedup.engine.alignment import TIED, Combine, combined, follows, side_by_side
from prune_speedup.engine.labels import Array
from prune_speedup.engine.values import Group, Value, at_first, expanded

if TYPE_CHECKING:
    from prune_speedup.engine.flow import Flow

__all__ = ["align_clusters", "states_of", "varies"]


def align_clusters(
    flow: "Flow",
    operands: Sequence[Value],
    shape: tuple[int, ...],
    known: Combine,
    summed: frozenset[int],
) -> Value:
    """`Flow.align` where groups run along several axes.

    Args:
        flow: Where it happens.
        operands: What meets.
        shape: The shape of the result.
        known: What is known of the result where this is known of the operands.
        summed: Axes that a contraction sums over afterwards.
    """
    aligned = [_broadcast(operand, shape) for operand in operands]
    groups: list[Group] = []
    for cluster in _clusters(aligned):
        groups += _align_cluster(flow, aligned, cluster, known, summed)
    free = frozenset(
        axis for axis in range(len(shape)) if all(v.any_size(axis) for v, _ in aligned)
    )
    return Value(shape, tuple(groups), free)


def _broadcast(value: Value, shape: tuple[int, ...]) -> tuple[Value, tuple[Group, ...]]:
    """A value with as many axes as a shape, and its groups as long as that."""
    lead = len(shape) - value.ndim
    if not lead and value.shape == shape:
        return value, value.groups
    groups = tuple(Group(expanded(group.codes, shape)) for group in value.groups)
    sizes = (1,) * lead + value.shape
    free = frozenset(axis + lead for axis in value.free)
    return Value(sizes, groups, free, value.constant, value.pending, value.zero), groups


def _clusters(operands: list[tuple[Value, tuple[Group, ...]]]) -> list[frozenset[int]]:
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


def _align_cluster(
    flow: "Flow",
    operands: list[tuple[Value, tuple[Group, ...]]],
    cluster: frozenset[int],
    known: Combine,
    summed: frozenset[int],
) -> list[Group]:
    members = [
        (operand, [group for group in groups if cluster & set(group.axes)])
        for operand, groups in operands
    ]
    present = [group for _, groups in members for group in groups]
    for value, groups in members:
        covered = {axis for group in groups for axis in group.axes}
        for axis in cluster - covered:
            if not value.any_size(axis):
                for group in present:
                    if axis in group.axes:
                        flow.pin_labels(group.compact(), axis, TIED)
    # 1. All are cut by the same axes, as in the sum of two feature maps: tie them.
    widest = max(present, key=lambda group: len(group.axes))
    if all(group.axes == widest.axes for group in present):
        for group in present:
            if group is not widest:
                flow.labels.tie(widest.compact(), group.compact(), TIED)
        states = states_of(members, known)
        one = all(follows(group, widest) for group in present)
        return [widest.with_states(states if one else side_by_side(states))]
    # 2. None holds all others, or the sum over them comes next, as in attention: heads x
    #    features against features. Only what every one is cut by can be cut.
    common = set(widest.axes).intersection(*(group.axes for group in present))
    if summed & cluster or not all(set(g.axes) <= set(widest.axes) for g in present):
        keep = set(summed & common) or common
        _reduce_to(flow, present, keep)
        if not keep:
            return []
        reduced = [(value, [group.only(keep) for group in groups]) for value, groups in members]
        narrow = next(group for _, groups in reduced for group in groups)
        return [narrow.with_states(side_by_side(states_of(reduced, known)))]
    # 3. One holds all others: heads x features plus features. It may turn out that nothing but
    #    whole heads can go, and then the other need not lose a feature. Wait and see.
    flow.deferred.append(lambda: _choose(flow, members))
    return [widest.with_states(side_by_side(states_of(members, known)))]


def states_of(members: list[tuple[Value, list[Group]]], combine: Combine) -> Array | int:
    """What is known of a result of operands with these groups along the axes of a cluster."""
    known: list[Array | int] = []
    for value, groups in members:
        if len(groups) == 1 and isinstance(groups[0].known, int):
            known.append(groups[0].known)
        else:
            own = [group.states() for group in groups]
            known.append(reduce(np.maximum, own) if own else value.state)
    return combined(known, combine)


def _reduce_to(flow: "Flow", groups: list[Group], keep: set[int]) -> None:
    """Let several groups vary along the axes that they share, and along no other."""
    for group in groups:
        for axis in group.axes:
            if axis not in keep:
                flow.pin_labels(group.compact(), axis, TIED)
    for group in groups[1:]:
        flow.labels.tie(groups[0].compact(), group.compact(), TIED)


def _choose(flow: "Flow", members: list[tuple[Value, list[Group]]]) -> None:
    """Decide an overlap of unequal groups by what has become of them meanwhile."""
    now = [
        (value, [(group, _varying(flow, group)) for group in groups]) for value, groups in members
    ]
    for value, groups in now:
        own = {axis for _, axes in groups for axis in axes}
        for other, others in now:
            if other is not value:
                for group, axes in others:
                    for axis in axes - own:
                        if not value.any_size(axis):
                            flow.pin_labels(group.compact(), axis, TIED)
    everything = [group for _, groups in now for group, _ in groups]
    for left, right in combinations(everything, 2):
        if _varying(flow, left) & _varying(flow, right):
            flow.labels.tie(left.compact(), right.compact(), TIED)


def _varying(flow: "Flow", group: Group) -> set[int]:
    roots = flow.labels.find(group.compact())
    if np.count_nonzero(flow.labels.is_fixed(roots)) == roots.size:
        return set()
    return {axis for axis in range(roots.ndim) if varies(roots, axis)}


def varies(labels: Array, axis: int) -> bool:
    """Whether these differ along an axis."""
    if labels.shape[axis] == 1:
        return False
    return bool(np.count_nonzero(labels != at_first(labels, (axis,))))

"""Send labels through a graph until nothing more can be said.

It is one walk along the calls, in the order in which they ran. In `linear(relu(conv(x)))`:

    conv.weight    [1 2 3] x [4 5]      its result carries 1 2 3 along the channels
    relu                                hands them on: what was zero is zero
    linear.weight  [6 7] x [8 9 10]     the sum over its columns ties 8 9 10 to 1 2 3
    returned                            fixes 6 7, which the result carries

The classes {1 8}, {2 9} and {3 10} are left, which are the units. 4 and 5 meet the input, which has
no labels and cannot lose anything: they are fixed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import ALIAS_WRITE, Call, Graph, Ref
from prune_speedup.engine.labels import Array, Labels, Settled
from prune_speedup.engine.rules import Declined, Rules, failed
from prune_speedup.engine.values import (
    CONSTANT,
    UNIFORM,
    ZERO,
    Group,
    Value,
    at_first,
    one_of,
)

__all__ = ["Labelling", "Numbers", "Zeros", "keep_whole_axes", "propagate"]

_ROUNDS = 20

Zeros = Mapping[tuple[int, int], npt.NDArray[np.bool_]]
"""{(value, axis): which indices along it hold nothing but zeros}."""

Numbers = Callable[[int, Group], npt.NDArray[np.float64] | None]
"""What a masked run has seen of a value: at each label of a group the one number that stands there
whatever the input, or NaN."""


@dataclass(slots=True)
class Labelling:
    """The labels of a graph, settled.

    Attributes:
        graph: What was labelled.
        labels: The classes.
        axes: The labels of every axis of every parameter and buffer, by value number.
        flow: Every value's groups, and what was noted on the way.
        standings: What masks leave of the units, for the last masks that it was asked for.
    """

    graph: Graph
    labels: Labels
    axes: dict[int, list[Array | None]]
    flow: Flow
    standings: list[tuple[Zeros, Any]] = field(default_factory=list, repr=False)


def propagate(
    graph: Graph,
    rules: Rules,
    zeros: Zeros | None = None,
    settled: Labels | None = None,
    numbers: Numbers | None = None,
) -> Labelling:
    """Label every axis of every parameter and find out which labels are the same.

    Args:
        graph: A recorded forward.
        rules: What its operators do with labels.
        zeros: Which indices of the axes of which parameters hold nothing but zeros. Without it,
            every index is taken to be zero once its label is removed, which is what makes a
            unit; with it, sums over what is not zero are noted in `Flow.leaks`.
        settled: The labels of the same graph from a run without `zeros`, if only that is to be
            found out which has to do with what is zero.
        numbers: What the numbers are where they are the same for any input, so that those which
            are zero count as zeros: a ReLU may make them of a constant.
    """
    labels = Labels() if settled is None else Settled(settled)
    flow = Flow(labels, graph.metas, rules, leaking=zeros is not None)
    axes = _label_tensors(graph, flow, zeros)
    for index in graph.inputs:
        flow.values.setdefault(index, Value(graph.metas[index].shape))
    for position, call in enumerate(graph.calls):
        flow.begin(call, position)
        for index in call.inputs():
            if index not in flow.values:
                flow.values[index] = Value(graph.metas[index].shape)
        _apply(flow, graph, position)
        for made in call.outputs if numbers is not None else ():
            if made is not None and numbers is not None:
                flow.values[made] = _told(flow.values[made], made, numbers)
    flow.where = ""
    # Whoever gets what leaves the model expects its size. That holds however the choices below are
    # made, so it is said before them.
    for index in graph.outputs:
        for related in flow.stale.get(index, ()):
            flow.fix_value(flow.values[related], "it was written to through a view")
        flow.fix_value(flow.values.setdefault(index, Value(())), "the model returns it")
    known = [
        column.ravel()
        for index, columns in axes.items()
        if index not in graph.asked_for
        for column in columns
        if column is not None
    ]
    for index in graph.shown:
        flow.fix_others(flow.values.setdefault(index, Value(())), known)
    for index in (*graph.kept, *graph.written, *graph.left):
        flow.values.setdefault(index, Value(graph.metas[index].shape))
    for index in graph.kept:
        flow.fix_value(flow.values[index], "the model keeps it, and nothing else is done with it")
    for index in graph.written:
        flow.settle(flow.values[index], "the model keeps it")
    for index, how in graph.left.items():
        flow.fix_value(flow.values[index], f"it leaves torch by {how}")
    if settled is None:
        _settle(flow)
        keep_whole_axes(labels, axes)
    return Labelling(graph, labels, axes, flow)


def _told(value: Value, index: int, numbers: Numbers) -> Value:
    """A value of which is known where its numbers, the same for any input, are zero."""
    groups = []
    for group in value.groups:
        states = group.states()
        told = (states == UNIFORM) | (states == CONSTANT)
        if np.count_nonzero(told) and (seen := numbers(index, group)) is not None:
            group = group.with_states(np.where(told & (seen == 0), ZERO, states))
        groups.append(group)
    return replace(value, groups=tuple(groups))


def _label_tensors(graph: Graph, flow: Flow, zeros: Zeros | None) -> dict[int, list[Array | None]]:
    """Fresh labels for every axis longer than one of every floating tensor."""
    wanted = [
        (index, axis, size)
        for index in graph.tensors
        if graph.metas[index].real
        for axis, size in enumerate(graph.metas[index].shape)
        if size > 1
    ]
    every = flow.labels.new(sum(size for _, _, size in wanted))
    flow.tensors = len(flow.labels)
    axes: dict[int, list[Array | None]] = {
        index: [None] * len(graph.metas[index].shape) for index in graph.tensors
    }
    start = 0
    for index, axis, size in wanted:
        axes[index][axis] = every[start : start + size]
        start += size
    for index, columns in axes.items():
        shape = graph.metas[index].shape
        numbers = prod(shape)
        groups: list[Group] = []
        for axis, column in enumerate(columns):
            if column is not None:
                # A number for each index, or many of them: a bias is the one, a matrix the other.
                own = UNIFORM if numbers == shape[axis] else CONSTANT
                state: Array | int = ZERO if index in graph.parameters else own
                if zeros is not None:
                    known = zeros.get((index, axis))
                    state = own if known is None else one_of(np.where(known, ZERO, own))
                groups.append(Group.along(axis, column, state, shape))
        flow.values[index] = Value(shape, tuple(groups), constant=True)
    return axes


def _apply(flow: Flow, graph: Graph, position: int) -> None:
    call = graph.calls[position]
    if call.target == ALIAS_WRITE:
        (made,), (old, source) = call.outputs, call.inputs()
        assert made is not None
        if old not in flow.stale and (way := _way(graph, position, old, source)):
            flow.values[made] = _through_views(flow, graph, way, old, source)
            return
        flow.stale[made] = [*flow.stale.get(old, [old]), source]
        flow.values[made] = Value(graph.metas[made].shape)
        return
    for read in call.inputs():
        for related in flow.stale.get(read, ()):
            flow.fix_value(flow.values[related], "it was written to through a view")
    constant = True
    for read in call.inputs():
        constant = constant and flow.values[read].constant
    constant = constant and flow.rules.repeatable(call.target)
    for index, value in zip(call.outputs, _results(flow, graph, call), strict=True):
        if index is not None and value is not None:
            if value.constant != constant:
                value = value.with_groups(value.groups)  # it may be one of the inputs
                value.constant = constant
            flow.values[index] = value


_VIEWS = {"slice", "select", "alias", "detach"}
_REACH = 20
"""How far before a write to a view its views are looked for."""


def _way(graph: Graph, position: int, old: int, source: int) -> list[int]:
    """The calls by which a value was written to: its views, and what wrote to the last of them.

    Empty where the views are no simple ones, or are of what the value was before.
    """
    way: list[int] = []
    wanted = source
    for at in range(position - 1, max(position - _REACH, -1), -1):
        call = graph.calls[at]
        if wanted not in call.outputs:
            continue
        known = call.name in _VIEWS if way else call.name.endswith("_")
        if not known or not isinstance(call.args[0], Ref):
            return []
        way.insert(0, at)
        wanted = call.args[0].index
        if wanted == old:
            return way
    return []


def _through_views(flow: Flow, graph: Graph, way: list[int], old: int, source: int) -> Value:
    """What a value is after some of it was written to.

    It keeps its labels, which its views have too, so that what is written meets them there.
    """
    value = flow.label_free(Ref(old), range(len(graph.metas[old].shape)))
    for at in way:
        flow.begin(graph.calls[at], at)
        _apply(flow, graph, at)
    written = flow.values[source]
    flow.settle(value, flow.where)
    flow.settle(written, flow.where)
    groups = tuple(flow.after(group, written) for group in value.groups)
    return Value(value.shape, groups, constant=value.constant and written.constant)


def _results(flow: Flow, graph: Graph, call: Call) -> list[Value | None]:
    """What a call makes by its rule; without a rule that fits, all that goes in stays."""
    shapes = [None if index is None else graph.metas[index].shape for index in call.outputs]
    entry = flow.rules.find(call.target)
    why = f"no rule for {call.target}"
    if entry is not None:
        try:
            returned = entry.apply(flow, call)
        except Declined as declined:
            why = str(declined)
        except Exception as error:  # a rule may be a plugin's, and met what it never thought of
            flow.failed[str(call.target)] = told = failed(entry, call, error)
            why = str(told)
        else:
            made: list[Value | None] = [returned] if isinstance(returned, Value) else list(returned)
            if [value.shape if value else None for value in made] == shapes:
                if not entry.carries:
                    for read in call.inputs():
                        flow.settle(flow.values[read], flow.where)
                return made
            why = f"the rule of {call.target} made other shapes than the operator"
    flow.unruled[flow.position] = why
    for read in call.inputs():
        flow.fix_value(flow.values[read], why)
        if flow.values[read].groups:
            flow.unknown.setdefault(str(call.target), call.module)
    return [None if shape is None else Value(shape) for shape in shapes]


def _settle(flow: Flow) -> None:
    """Make the choices that were put off, the likeliest to be decided already first."""
    # A choice only ties or fixes more, and may decide another one. So they are all made again after
    # each kind, until nothing changes. Preferences come late: they give something up where two
    # cuts would both be right.
    # The same grid is met by one call after the other, turned or not; once is enough.
    grids = {
        (tuple([size for size in labels.shape if size > 1]), labels.tobytes()): labels
        for labels in reversed(flow.rectangles)
    }
    rectangles = [partial(_make_rectangular, flow, grid) for grid in reversed(grids.values())]
    decided = -1
    for choices in ((), rectangles, flow.preferences, rectangles):
        for choose in choices:
            choose()
        if flow.labels.changes != decided:
            decided = _repeat(flow, flow.deferred)


def _repeat(flow: Flow, choices: Sequence[Callable[[], None]]) -> int:
    """Make choices until nothing changes; return up to which change they have been made."""
    # Classes only grow, so this ends by itself; the bound is for rules that do not keep to it.
    for _ in range(_ROUNDS):
        before = flow.labels.changes
        for choose in choices:
            choose()
        if flow.labels.changes == before:
            break
    return before


def _make_rectangular(flow: Flow, labels: Array) -> None:
    """Let a group be cut along one axis only: the one that leaves the most to choose from.

    Labels [[1 2 3] [4 5 6]] differ along both axes, but a grid with a hole in it is no tensor. The
    second axis is the longer one: 4 is tied to 1, 5 to 2 and 6 to 3, and columns can go.
    """
    roots = flow.labels.find(labels)
    varying = [
        axis
        for axis in range(roots.ndim)
        if roots.shape[axis] > 1 and np.count_nonzero(roots != at_first(roots, (axis,)))
    ]
    if len(varying) < 2 or np.count_nonzero(flow.labels.is_fixed(roots)) == roots.size:
        return
    keep = max(varying, key=lambda axis: roots.shape[axis])
    for axis in varying:
        if axis != keep:
            flow.labels.tie(labels, labels.take([0], axis), "an axis is cut in a grid")


def keep_whole_axes(labels: Labels, axes: dict[int, list[Array | None]]) -> None:
    """A class that is all of an axis would leave nothing of it."""
    every, _ = labels.classes()
    for columns in axes.values():
        for column in columns:
            if column is not None:
                if every[column[0]] != every[column[-1]]:
                    continue
                roots = every[column]
                if not np.count_nonzero(roots != roots[0]):
                    labels.fix(roots[:1], "nothing would be left of an axis")

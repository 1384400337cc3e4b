"""Products summed over an axis: matrices, batches of matrices, convolutions.

The axis that is summed over is tied, and is gone afterwards. The others are kept:

    x (8, 4)   axis 1:  1 2 3 4  ┐ tied: 1=5 2=6 3=7 4=8
    w (3, 4)   axis 1:  5 6 7 8  ┘
               axis 0:  9 10 11
    x @ w.T    axis 1:  9 10 11

A convolution is the same with more axes: a kernel `(out, in, 3, 3)` ties `in`, and its window keeps
the axes that it slides along.
"""

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.joining import apart
from prune_speedup.engine.values import CONSTANT, Group, Value, expanded, extended
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []

_MATMULS = {
    "mm": "ij,jk->ik",
    "bmm": "bij,bjk->bik",
    "mv": "ij,j->i",
    "dot": "i,i->",
    "ger": "i,j->ij",
}
_ADDED = {"addmm": "mm", "baddbmm": "bmm", "addmv": "mv"}


@rule("aten.mm", "aten.bmm", "aten.mv", "aten.dot")
def product(flow: Flow, call: Call) -> Value:
    """A matrix product."""
    return flow.contract(flow.get(call.args[0]), flow.get(call.args[1]), _MATMULS[call.name])


@rule("aten.addmm", "aten.baddbmm", "aten.addmv")
def product_and_bias(flow: Flow, call: Call) -> Value:
    """A matrix product and what is added to it."""
    bias, left, right = (flow.get(argument) for argument in call.args[:3])
    made = flow.contract(left, right, _MATMULS[_ADDED[call.name.rstrip("_")]])
    return flow.align([bias, made], made.shape, all)


@rule("aten.linear")
def linear(flow: Flow, call: Call) -> Value:
    """A product with the transposed weight, over any number of leading axes."""
    value, weight = flow.get(call.args[0]), flow.get(call.args[1])
    lead = ascii_lowercase[: value.ndim - 1]
    made = flow.contract(value, weight, f"{lead}y,zy->{lead}z")
    if isinstance(bias := call.argument("bias"), Ref):
        return flow.align([made, flow.get(bias)], made.shape, all)
    return made


@rule("aten._trilinear")
def trilinear(flow: Flow, call: Call) -> Value:
    """A product of three, each with new axes of its own, summed over some."""
    operands = [
        _unsqueezed(flow.get(ref), axes)
        for ref, axes in zip(call.args[:3], call.args[3:6], strict=True)
    ]
    shape = np.broadcast_shapes(*(operand.shape for operand in operands))
    product = flow.align(operands, shape, any, summed=frozenset(call.args[6]))
    return flow.reduce(product, call.args[6], keep=False, kind="sum", why="summed")


@rule("aten._cdist_forward", "aten._euclidean_dist")
def distances(flow: Flow, call: Call) -> Value:
    """Every row of one against every row of the other, summed over what is in a row."""
    left, right = flow.get(call.args[0]), flow.get(call.args[1])
    pair = [_unsqueezed(left, [left.ndim - 1]), _unsqueezed(right, [right.ndim - 2])]
    shape = np.broadcast_shapes(*(each.shape for each in pair))
    last = len(shape) - 1
    gaps = flow.align(pair, shape, all, summed=frozenset({last}))
    return flow.reduce(gaps, [last], keep=False, kind="sum", why="summed")


def _unsqueezed(value: Value, axes: Sequence[int]) -> Value:
    """The value with axes of length one at these places of the result."""
    where = list(range(value.ndim))
    for axis in sorted(axes):
        where.insert(axis, -1)
    shape = tuple(1 if at < 0 else value.shape[at] for at in where)
    lift = tuple(None if at < 0 else slice(None) for at in where)
    free = frozenset(new for new, at in enumerate(where) if at in value.free)
    return Value(shape, tuple(Group(g.codes[lift]) for g in value.groups), free, value.constant)


@rule("aten._grouped_mm")
def grouped_product(flow: Flow, call: Call) -> Value:
    """A matrix for each run of rows, as experts have: the experts themselves stay."""
    rows, weights = flow.get(call.args[0]), flow.get(call.args[1])
    flow.pin(rows, 0, "its rows are dealt to experts")
    flow.pin(weights, 0, "experts are told by their number")
    if rows.ndim != 2 or weights.ndim != 3:
        flow.fix_value(rows, "an unusual product in groups")
        flow.fix_value(weights, "an unusual product in groups")
        return Value(flow.result_shape(call))
    kept = tuple(Group(g.only({1, 2}).codes[0]) for g in weights.groups if set(g.axes) - {0})
    one = Value(weights.shape[1:], kept)
    return flow.contract(rows, one, "ij,jk->ik")


@rule("aten.convolution", "aten._convolution")
def convolution(flow: Flow, call: Call) -> Value:
    """A convolution of any number of dimensions, grouped, depthwise or transposed."""
    value, weight = flow.get(call.args[0]), flow.get(call.args[1])
    transposed, groups = bool(call.argument("transposed")), int(call.argument("groups"))
    shape = flow.result_shape(call)
    flow.pin(value, 0, "a convolution takes it for a batch")
    flow.pin_all(value, range(2, value.ndim), "a convolution slides along it")
    flow.pin_all(weight, range(2, weight.ndim), "a convolution slides along it")
    value, weight = _flat(value), _flat(weight)
    if transposed:
        made = _transposed(flow, value, weight, groups)
    else:
        made = _plain(flow, value, weight, groups)
    # At the edge it reads less than elsewhere.
    made = made.at_least(CONSTANT)
    if isinstance(bias := call.argument("bias"), Ref):
        made = flow.align([made, flow.get(bias)], made.shape, all)
    return Value(shape, tuple([_slid_along(group, shape) for group in made.groups]))


def _flat(value: Value) -> Value:
    """The value at one place of the axes that are slid along."""
    shape, kept = value.shape[:2], []
    for group in value.groups:
        if len(group.axes) > 1:
            at: tuple[slice | int, ...] = (slice(None), slice(None), *[0] * (value.ndim - 2))
            group = Group(group.only({0, 1}).codes[at])
            kept += [group] if group.axes else []
        elif group.axes[0] < 2:
            kept.append(group.at(group.axes[0], shape))
    return Value(shape, tuple(kept), frozenset([axis for axis in value.free if axis < 2]))


def _slid_along(group: Group, shape: tuple[int, ...]) -> Group:
    """A group of the first two axes, at every place of those that are slid along."""
    if len(group.axes) == 1:
        return group.at(group.axes[0], shape)
    lift = (..., *[None] * (len(shape) - 2))
    return Group(extended(group.codes[lift], shape))


def _plain(flow: Flow, value: Value, weight: Value, groups: int) -> Value:
    if groups == 1:
        return flow.contract(value, weight, "bi,oi->bo")
    value = _split(value, 1, groups)
    weight = _split(weight, 0, groups)
    _settle_groups(flow, value, weight, inner=2, outer=1)
    made = flow.contract(_repinned(flow, value), _repinned(flow, weight), "bgi,goi->bgo")
    return _merged(flow, made)


def _transposed(flow: Flow, value: Value, weight: Value, groups: int) -> Value:
    if groups == 1:
        return flow.contract(value, weight, "bi,io->bo")
    value = _split(value, 1, groups)
    weight = _split(weight, 0, groups)
    _settle_groups(flow, value, weight, inner=1, outer=2)
    made = flow.contract(_repinned(flow, value), _repinned(flow, weight), "bgi,gio->bgo")
    return _merged(flow, made)


def _settle_groups(flow: Flow, value: Value, weight: Value, *, inner: int, outer: int) -> None:
    """Choose what a grouped convolution can lose: whole groups, or the same index in each.

    Whichever leaves more to choose from; a depthwise convolution has whole groups only.
    """
    groups, inside = weight.shape[0], weight.shape[inner]
    outside = weight.shape[outer]
    if groups >= inside or inside == 1:
        flow.pin(value, 2, "a group of a convolution goes as a whole")
        flow.pin(weight, inner, "a group of a convolution goes as a whole")
        if outside > 1:
            flow.pin(weight, outer, "a group of a convolution goes as a whole")
        return
    flow.pin(value, 1, "the groups of a convolution stay")
    flow.pin(weight, 0, "the groups of a convolution stay")


def _repinned(flow: Flow, value: Value) -> Value:
    """The value with stride 0 along the axes that pinning has made equal."""
    groups = []
    for group in value.groups:
        first, last = flow.labels.find(group.line[[0, -1]]).tolist()
        # Of one axis whose ends differ, nothing was made equal.
        for axis in group.axes if len(group.axes) > 1 or first == last else ():
            roots = flow.labels.find(group.compact())
            if not np.count_nonzero(roots != roots.take([0], axis)):
                group = group.only(set(group.axes) - {axis})
        groups.append(group)
    return Value(value.shape, tuple(g for g in groups if g.axes), value.free)


def _split(value: Value, axis: int, groups: int) -> Value:
    shape = (*value.shape[:axis], groups, value.shape[axis] // groups, *value.shape[axis + 1 :])
    made = tuple([_reshaped(group, axis, shape) for group in value.groups])
    free = {at + (at > axis) for at in value.free if at != axis}
    if axis in value.free:
        free |= {axis, axis + 1}
    return Value(shape, made, frozenset(free))


def _reshaped(group: Group, axis: int, shape: tuple[int, ...]) -> Group:
    """A group where an axis is two: those behind it move on by one."""
    own = group.axes[0]
    if len(group.axes) > 1 or (own == axis and 1 not in shape[axis : axis + 2]):
        return Group(group.codes.reshape(shape))
    second = own > axis or (own == axis and shape[axis] == 1)
    return group.at(own + second, shape)


def _merged(flow: Flow, value: Value) -> Value:
    batch, groups, inside = value.shape
    shape = (batch, groups * inside)
    made = []
    for group in value.groups:
        if 0 in group.axes:
            continue
        if group.line.size == shape[1]:
            made.append(group.at(1, shape))
        else:
            made.append(Group(expanded(group.codes[0].reshape(shape[1]), shape)))
    return Value(shape, apart(flow, made))

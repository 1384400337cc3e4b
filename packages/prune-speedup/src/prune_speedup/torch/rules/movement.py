"""What only moves data is run as it is, on the labels instead of the numbers.

    h (2, 6)             axis 1:  1 2 3 4 5 6
    h.flip(1)            axis 1:  6 5 4 3 2 1
    h[:, 2:]             axis 1:  3 4 5 6
    h.view(2, 3, 2)      axes 1 and 2, in one group:  1 2 / 3 4 / 5 6

In the last one no label is the same along a whole row or column yet. Whoever uses one of the two
axes for itself ties it: `sum(2)` needs rows, so 1=2, 3=4, 5=6, and pairs go together.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, replace_refs
from prune_speedup.engine.joining import apart, join
from prune_speedup.engine.labels import Array
from prune_speedup.engine.values import (
    CONSTANT,
    Group,
    Value,
    encode,
    expanded,
    extended,
    squeezed,
    without_copies,
)
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []


@rule("aten.alias", "aten.detach", "aten.clone", "aten.contiguous", "aten.lift_fresh", carries=True)
@rule("aten._to_copy", "aten.to", "aten.lift", "aten._conj", "aten.lift_fresh_copy", carries=True)
def same(flow: Flow, call: Call) -> Value:
    """The same numbers at the same places."""
    return flow.get(call.args[0])


@rule("aten.as_strided", carries=True)
def restride(flow: Flow, call: Call) -> Value:
    """Other strides for the same shape, as pooling asks for, change nothing."""
    value = flow.get(call.args[0])
    if value.shape == tuple(call.args[1]):
        return value
    flow.fix_value(value, "it is read through strides")
    return Value(flow.result_shape(call))


@rule(
    "aten.view", "aten._unsafe_view", "aten.reshape", "aten.permute", "aten.transpose", carries=True
)
@rule("aten.t", "aten.unsqueeze", "aten.squeeze", "aten.expand", "aten.slice", carries=True)
@rule("aten.unfold", "aten.pixel_shuffle", "aten.pixel_unshuffle", carries=True)
@rule("aten.channel_shuffle", "aten.native_channel_shuffle", "aten.movedim", carries=True)
@rule("aten.split", "aten.split_with_sizes", "aten.unsafe_split", carries=True)
@rule("aten.unsafe_split_with_sizes", "aten.chunk", carries=True)
def move(flow: Flow, call: Call) -> Sequence[Value]:
    """Run the operator on the labels."""
    value = flow.get(call.args[0])
    if call.name in ("view", "_unsafe_view", "reshape") and value.free:
        value = flow.label_free(call.args[0], _folded(call, value))
    if call.name.removeprefix("unsafe_") in ("split", "split_with_sizes", "chunk"):
        sizes = {flow.result_shape(call, at) for at in range(len(call.outputs))}
        if len(sizes) == 1:
            _prefer_even_pieces(flow, value, call.argument("dim"), len(call.outputs))
    if call.name == "slice" and (count := _even_sections(call, value)):
        _prefer_even_pieces(flow, value, call.argument("dim"), count)
    if call.name.removeprefix("native_") == "channel_shuffle":
        _prefer_even_pieces(flow, value, 1, call.args[1])
    if call.name == "slice" and (step := call.argument("step")) > 1:
        _prefer_whole_steps(flow, call, value, step)
    moved = [_moved_group(flow, call, group) for group in value.groups]
    frees = _free_after(call, value)
    results: list[Value] = []
    for at, free in enumerate(frees):
        groups = [pieces[at] for pieces in moved]
        shape = flow.result_shape(call, at)
        made = Value(shape, apart(flow, groups), free, pending=value.pending, zero=value.zero)
        results.append(made)
    return results


@rule("aten.diagonal", carries=True)
def diagonal(flow: Flow, call: Call) -> Value | Sequence[Value | None]:
    """Position against position: neither of the two axes can lose an index."""
    value = flow.get(call.args[0])
    axes = (call.argument("dim1"), call.argument("dim2"))
    flow.pin_all(value, axes, "a diagonal of it is taken")
    return move(flow, call)


@rule("aten.select", "aten.unbind", carries=True)
def take_one(flow: Flow, call: Call) -> Value | Sequence[Value | None]:
    """Indices along this axis are taken apart by their place, so none of them can go."""
    value = flow.get(call.args[0])
    axis = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)
    flow.pin(value, axis, "an index of this axis is taken by its place")
    return move(flow, call)


@rule("aten.roll", "aten.flip", "aten.constant_pad_nd", "aten.repeat", carries=True)
@rule("aten.reflection_pad1d", "aten.reflection_pad2d", "aten.reflection_pad3d", carries=True)
@rule("aten.replication_pad1d", "aten.replication_pad2d", "aten.replication_pad3d", carries=True)
def act_on_axes(flow: Flow, call: Call) -> Value:
    """As `move`, without ever writing out what does not vary along the axes acted on."""
    value = flow.get(call.args[0])
    shape = flow.result_shape(call)
    acted = _acted_axes(call, value)
    lead = len(shape) - value.ndim
    groups: list[Group] = []
    if call.name == "constant_pad_nd":
        _fix_cropped(flow, value, call.argument("pad"))
    for group in value.groups:
        if acted & set(group.axes):
            groups.append(Group(squeezed(_run(call, group.codes)[0])))
        else:
            groups.append(Group(extended(group.codes[(None,) * lead], shape)))
    free = frozenset(axis + lead for axis in value.free if axis not in acted) | {*range(lead)}
    if call.name == "repeat":
        free |= {axis + lead for axis in acted if value.shape[axis] == 1}
    made = Value(shape, apart(flow, groups), free, pending=value.pending)
    if call.name != "constant_pad_nd":
        return made
    # Zeros beside zeros are zeros; beside any other number they are not what that is.
    return made.at_least(CONSTANT) if call.argument("value") == 0 else made.never_zero()


@rule("aten.cat", "aten.concatenate")
def cat(flow: Flow, call: Call) -> Value:
    """Labels one behind the other; across the other axes the pieces are tied."""
    shape = flow.result_shape(call)
    axis = call.argument("dim") % len(shape)
    # A piece without any index, such as `x[..., 8:]` of eight, says nothing of the others.
    filled = [ref for ref in call.args[0] if 0 not in flow.get(ref).shape]
    pieces = [flow.label_free(ref, {axis}) for ref in filled or call.args[0][:1]]
    return join(flow, pieces, axis, shape)


@rule("aten.stack")
def stack(flow: Flow, call: Call) -> Value:
    """Pieces one behind the other along a new axis."""
    shape = flow.result_shape(call)
    axis = call.argument("dim") % len(shape)
    pieces = []
    for ref in call.args[0]:
        value = flow.get(ref)
        groups = tuple(Group(np.expand_dims(g.codes, axis)) for g in value.groups)
        sizes = (*value.shape[:axis], 1, *value.shape[axis:])
        free = frozenset(at + (at >= axis) for at in value.free)
        pieces.append(Value(sizes, groups, free))
    return join(flow, pieces, axis, shape)


def _moved_group(flow: Flow, call: Call, group: Group) -> Sequence[Group]:
    """A group in each of the results."""
    line, shape = group.line, flow.result_shape(call)
    axes: tuple[int, ...] | None = None
    if len(call.outputs) == 1 and group.axes and 0 not in group.shape:
        order = _order(call, len(group.shape))
        if order is not None and len(group.axes) > 1:
            return [Group(squeezed(group.codes.transpose(order)))]
        if order is not None:
            axes = (order.index(group.axes[0]),)
        elif call.name in _FOLDS:
            axes = _axes_folded(group.shape, group.axes, shape)
    if axes is None:
        return [Group(squeezed(codes)) for codes in _run(call, group.codes)]
    if len(axes) == 1 and line[0] != line[-1]:
        return [group.at(axes[0], shape)]
    small = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    return [Group(squeezed(expanded(encode(line, group.known).reshape(small), shape)))]


def _order(call: Call, ndim: int) -> list[int] | None:
    """The axes in their new order, if that is all that becomes of them."""
    if call.name == "permute":
        return [axis % ndim for axis in call.argument("dims")]
    if call.name not in ("transpose", "t"):
        return None
    order = list(range(ndim))
    pair = (0, -1) if call.name == "t" else (call.argument("dim0"), call.argument("dim1"))
    first, second = (axis % ndim for axis in pair)
    order[first], order[second] = second, first
    return order


_FOLDS = frozenset({"view", "_unsafe_view", "reshape", "unsqueeze", "squeeze"})


@lru_cache(maxsize=4096)
def _axes_folded(
    before: tuple[int, ...], axes: tuple[int, ...], after: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Where axes are in another shape of as many numbers, if their labels stay in one run.

    Axis 1 of `(8, 6, 10)` is axis 2 of `(4, 2, 6, 10)`, as what is in front of it is as much as
    before, and axes 1 and 2 of `(8, 2, 3, 10)`. In `(48, 10)` it has met the one of 8: `None`.
    """
    count = prod(before[axes[0] : axes[-1] + 1])
    if prod(before) != prod(after) or count != prod([before[axis] for axis in axes]):
        return None
    front, found = prod(before[: axes[0]]), list[int]()
    for at, size in enumerate(after):
        if front > 1:
            if front % size:
                return None
            front //= size
        elif count > 1:
            if count % size:
                return None
            count //= size
            found += [at] if size > 1 else []
    return tuple(found)


def _run(call: Call, codes: Array) -> Sequence[Array]:
    """What the operator makes of codes instead of numbers."""
    # A copy without repetitions, because torch warns of arrays that it may not write to.
    small = torch.from_numpy(without_copies(codes).copy())
    moved = _moved(call, small.expand(codes.shape))
    return [each.numpy() for each in moved]


def _moved(call: Call, codes: torch.Tensor) -> Sequence[torch.Tensor]:
    args, kwargs = replace_refs((call.args, call.kwargs), lambda _: codes)
    if call.name == "constant_pad_nd":  # what it fills with is a number and no label
        return [torch.constant_pad_nd(codes, args[1])]
    if call.name in ("view", "_unsafe_view"):
        return [codes.reshape(args[1])] if not isinstance(args[1], torch.dtype) else [codes]
    result = call.target(*args, **kwargs)
    return result if isinstance(result, list | tuple) else [result]


def _free_after(call: Call, value: Value) -> list[frozenset[int]]:
    """Where the free axes go, read off the strides of a tensor that has none there."""
    if not value.free and call.name != "expand":
        return [frozenset()] * len(call.outputs)
    probe = _probe(value.shape, value.free)
    try:
        args, kwargs = replace_refs((call.args, call.kwargs), lambda _: probe)
        moved = call.target(*args, **kwargs)
    except RuntimeError:
        return [frozenset()] * len(call.outputs)
    return [
        frozenset(
            axis
            for axis, (size, stride) in enumerate(zip(each.shape, each.stride(), strict=True))
            if size > 1 and not stride
        )
        for each in (moved if isinstance(moved, list | tuple) else [moved])
    ]


def _probe(shape: tuple[int, ...], free: Collection[int]) -> torch.Tensor:
    """A tensor without numbers that has stride 0 along these axes and no other."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(range(len(shape))):
        if axis not in free:
            strides[axis], step = step, step * shape[axis]
    return torch.empty_strided(shape, strides, device="meta")


def _folded(call: Call, value: Value) -> list[int]:
    """The free axes that a change of shape folds into one with an axis that is not free."""

    def folds(free: Collection[int]) -> bool:
        try:
            _probe(value.shape, free).view(call.args[1])
        except RuntimeError:
            return True
        return False

    return [axis for axis in value.free if folds({axis})] if folds(value.free) else []


def _fix_cropped(flow: Flow, value: Value, amounts: Sequence[int]) -> None:
    """What a padding by less than nothing takes away, it takes by its place."""
    for at, amount in enumerate(amounts):
        axis = value.ndim - 1 - at // 2
        if amount < 0 and (group := value.group_at(axis)) is not None:
            size = value.shape[axis]
            cropped = range(size + amount, size) if at % 2 else range(-amount)
            flow.fix(group.compact().take(cropped, axis), "it is cropped by its place")


def _acted_axes(call: Call, value: Value) -> set[int]:
    everything = set(range(value.ndim))
    if call.name in ("roll", "flip"):
        axes = call.argument("dims") or ()
        return {axis % value.ndim for axis in axes} or everything
    if "pad" in call.name:
        amounts = call.args[1]
        pairs = [amounts[at : at + 2] for at in range(0, len(amounts), 2)]
        return {value.ndim - 1 - at for at, pair in enumerate(pairs) if any(pair)}
    if call.name == "repeat":
        times = call.args[1][-value.ndim :] if value.ndim else []
        return {axis for axis, count in enumerate(times) if count != 1}
    return everything


def _prefer_even_pieces(flow: Flow, value: Value, axis: int, count: int) -> None:
    """Let so many even pieces of an axis lose the same indices.

    A forward that says `chunk(2)` cuts its small tensor in the middle again. Nothing forces this
    on a graph, so it is only asked for once all else is settled.
    """
    axis %= value.ndim
    group = value.group_at(axis)
    if group is None or count < 2:
        return
    labels, where = group.compact(), flow.where

    def tie() -> None:
        pieces = [*_halves(labels, axis, count)]
        for left, right in pairwise(pieces):
            flow.labels.tie(left, right, f"cut into even pieces ({where})")

    flow.preferences.append(tie)


def _even_sections(call: Call, value: Value) -> int:
    """How many even pieces a slice is one of, where it was `tensor_split` that was asked."""
    counted = call.site is not None and call.site.function == "tensor_split"
    if not counted or not call.bounds:
        return 0
    count = int(call.given[0])
    return 0 if value.shape[call.argument("dim")] % count else count


def _prefer_whole_steps(flow: Flow, call: Call, value: Value, step: int) -> None:
    """Let whole steps be lost, so that every second index stays every second one."""
    axis = call.argument("dim") % value.ndim
    group = value.group_at(axis)
    if group is None:
        return
    labels, where = group.compact(), flow.where
    first = np.arange(labels.shape[axis]) // step * step
    flow.preferences.append(
        lambda: flow.labels.tie(labels, labels.take(first, axis), f"cut by steps ({where})")
    )


def _halves(labels: Any, axis: int, count: int) -> Sequence[Any]:
    size = labels.shape[axis] // count
    return [labels.take(range(at * size, (at + 1) * size), axis) for at in range(count)]

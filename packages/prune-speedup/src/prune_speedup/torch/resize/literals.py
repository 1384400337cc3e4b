"""The numbers that a call of torch must be given once its tensors are smaller."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tag

from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.call_sites import ARITHMETIC, INDEXING, Number, Site

__all__ = ["same_places", "wanted_numbers"]

_SHAPED = {"view", "_unsafe_view", "reshape", "expand", "new_zeros", "new_ones", "new_full"} | {
    "zeros",
    "ones",
    "full",
    "empty",
    "new_empty",
}
_SLICING = INDEXING | {"tensor_split"}
"""Functions of torch that may make several slices at once."""

_CUT = {"split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"}


def wanted_numbers(
    plan: Plan, site: Site | None, position: int, given: tuple[Number, ...]
) -> dict[int, Number]:
    """{position among the given numbers: the number it must be}, of those that must change.

    Args:
        plan: What goes.
        site: A call of torch.
        position: The first recorded call that may belong to it.
        given: The numbers that it was given.
    """
    if site is None:
        return {}
    changes: dict[int, Number] = {}
    end = plan.labelling.graph.end_of_run(position)
    for at in plan.calls_at(site):
        call = plan.labelling.graph.calls[at]
        if position <= at < end and not isinstance(call.target, str):
            changes = _for_call(plan, at, given) | changes
            if changes and site.function not in _SLICING:
                break
    return changes


def _for_call(plan: Plan, position: int, given: tuple[Number, ...]) -> dict[int, Number]:
    call = plan.labelling.graph.calls[position]
    if call.site is not None and call.site.function in ARITHMETIC:
        # A number that is no size, though perhaps made of one: it stays what it was.
        pairs = zip(call.given, given, strict=True) if len(call.given) == len(given) else ()
        return {at: old for at, (old, now) in enumerate(pairs) if old != now}
    index = call.outputs[0]
    if index is None:
        return {}
    before, after = plan.labelling.graph.metas[index].shape, plan.shape(index)
    if call.site is not None and call.site.function == "unflatten":
        return _for_unflatten(plan, call, given)
    if call.name in _SHAPED and len(given) >= len(after):
        sizes = given[: len(after)]
        free = plan.labelling.flow.values[index].free
        asked = _asked_for(plan, position) if free else {}
        return {
            at: asked.get(at, new)
            for at, (size, new) in enumerate(zip(sizes, after, strict=True))
            if size not in (-1, asked.get(at, new)) and (at not in free or at in asked)
        }
    if call.name == "convolution":
        groups = after[1] // plan.shape_of(call.args[1])[1] if call.args[6] else 0
        groups = groups or plan.shape_of(call.args[0])[1] // plan.shape_of(call.args[1])[1]
        if not given or groups == given[-1]:
            return {}
        return {at: groups for at in range(len(given)) if given[at] == call.args[8] != groups}
    counted = call.site is not None and call.site.function in ("chunk", "tensor_split")
    axis = call.args[2] if len(call.args) > 2 else call.kwargs.get("dim", 0)
    if call.name in _CUT and not counted:
        pieces = [plan.shape(i)[axis] for i in call.outputs if i is not None]
        count = len(pieces) if call.name.endswith("with_sizes") else 1
        return {
            at: new
            for at, (size, new) in enumerate(zip(given[:count], pieces, strict=False))
            if size != new
        }
    if axes := _normalised(call, before):
        return {
            at: new
            for at, (size, new) in enumerate(zip(given, after[-axes:], strict=False))
            if size != new
        }
    if call.name == "native_group_norm" and call.args[6] > 1:
        groups = call.args[6] * after[1] // before[1]
        return {0: groups} if given[0] != groups else {}
    if call.name == "roll":
        return _for_roll(plan, call, given)
    if call.name == "slice":
        return _for_slice(plan, call, given)
    return {}


def _normalised(call: Call, made: Sequence[int]) -> int:
    """How many axes a norm runs over that is told their sizes; 0 if that is none."""
    if call.name in ("native_layer_norm", "_fused_rms_norm"):
        return len(call.args[1])
    if call.site is None or call.site.function != "rms_norm":
        return 0
    # On a processor, torch makes rms_norm of simpler calls: of `rms_norm(x, (64,))` the square is
    # as long as x, and ends in the 64 that it is told; the mean is of length 1, and does not.
    given = call.given
    counts = range(min(len(given), len(made)), 0, -1)
    return next((many for many in counts if tuple(made[-many:]) == given[:many]), 0)


def _asked_for(plan: Plan, position: int) -> dict[int, int]:
    """{axis: its length} of a tensor of copies, as the first call that it meets others in wants it.

    Such a tensor fits what it meets by its own shape, and only that says what it must become.
    """
    graph = plan.labelling.graph
    value = graph.calls[position].outputs[0]
    assert value is not None
    shape = graph.metas[value].shape
    for call in graph.calls[position + 1 :]:
        if value in call.inputs() and call.outputs[0] is not None:
            wanted = _met_by(plan, call, value)
            return {axis: size for axis, size in wanted.items() if size != shape[axis]}
    return {}


_PRODUCTS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
"""Which arguments are the factors of a product of matrices."""


def _met_by(plan: Plan, call: Call, value: int) -> dict[int, int]:
    """{axis: its length} of a value, where what it meets in a call has that length."""
    graph, made = plan.labelling.graph, call.outputs[0]
    assert made is not None
    rank = len(graph.metas[value].shape)
    if call.name in _PRODUCTS:
        left, right = (call.args[at] for at in _PRODUCTS[call.name])
        if left.index == value:
            return {rank - 1: plan.shape_of(right)[-2]}
        return {rank - 2: plan.shape_of(left)[-1]} if right.index == value else {}
    before, after = graph.metas[made].shape, plan.shape(made)
    masks = call.name.lstrip("_").startswith("scaled_dot_product") and not any(
        isinstance(factor, Ref) and factor.index == value for factor in call.args[:3]
    )
    meets = masks or Tag.pointwise in getattr(call.target, "tags", ()) or call.name == "cat"
    if not meets or len(before) < rank:
        return {}
    lead = len(before) - rank
    axes = range(rank - 1) if masks else range(rank)  # the last one of a mask is that of the keys
    same = [axis for axis in axes if graph.metas[value].shape[axis] == before[lead + axis]]
    return {axis: after[lead + axis] for axis in same}


def _for_unflatten(plan: Plan, call: Call, given: tuple[Number, ...]) -> dict[int, Number]:
    """An axis is told, and what it is to be opened into."""
    value, index = call.inputs()[0], call.outputs[0]
    assert index is not None
    axis = int(given[0]) % len(plan.labelling.graph.metas[value].shape)
    wanted, free = plan.shape(index)[axis:], plan.labelling.flow.values[index].free
    return {
        at + 1: new
        for at, (size, new) in enumerate(zip(given[1:], wanted, strict=False))
        if size not in (-1, new) and axis + at not in free
    }


def _for_roll(plan: Plan, call: Call, given: tuple[Number, ...]) -> dict[int, Number]:
    value = call.inputs()[0]
    kept, shape = dict(plan.kept_of_value(value)), plan.labelling.graph.metas[value].shape
    # Without an axis the whole tensor is rolled row by row, as along the last one.
    axes = (call.args[2] if len(call.args) > 2 else []) or [-1]
    changes: dict[int, Number] = {}
    for at, (shift, axis) in enumerate(zip(call.args[1], axes, strict=True)):
        stays = kept.get(axis % len(shape))
        if stays is not None and at < len(given):
            turns, rest = divmod(shift, shape[axis])
            # As many places as there are live ones among those that come round to the front.
            wanted = turns * len(stays) + int((stays >= shape[axis] - rest).sum())
            if given[at] != wanted:
                changes[at] = wanted
            # The next turn of the same axis finds them where this one has left them.
            kept[axis % len(shape)] = np.sort((stays + shift) % shape[axis])
    return changes


def _for_slice(plan: Plan, call: Call, given: tuple[Number, ...]) -> dict[int, Number]:
    value, axis, size = _sliced(plan, call)
    kept = plan.kept_of_value(value).get(axis)
    if kept is None:
        return {}
    begin, end, step = _slice_of(call.args, size)
    places = (kept >= begin) & (kept < end) & ((kept - begin) % step == 0)
    changes: dict[Number, Number] = {}
    if 0 < begin < size and bool(places.any()):
        # What the slice begins with may have gone: then it begins with the next that it takes.
        first = int(np.flatnonzero(places)[0] if step > 1 else (kept < begin).sum())
        changes |= {begin: first, begin - size: first - len(kept)}
    if 0 < end < size:
        last = int((kept < end).sum())
        # With nothing left behind it, an end counted from the back would be that of nothing.
        changes |= {end: last, end - size: last - len(kept) or last}
    if call.site is not None and call.site.function == "narrow" and len(given) == 3:
        wanted = {1: changes.get(begin, begin), 2: int(places.sum())}
        return {at: number for at, number in wanted.items() if given[at] != number}
    # What was given at first says which bound a number is; now it may be the right one already.
    first_given = call.given if len(call.given) == len(given) else given
    return {
        at: changes[number]
        for at, (number, now) in enumerate(zip(first_given, given, strict=True))
        if changes.get(number, now) != now and _bounds_slice(call, at, axis)
    }


def _bounds_slice(call: Call, at: int, axis: int) -> bool:
    """Whether a number says where the slice along this axis begins or ends."""
    if call.bounds:
        return call.bounds[at] in ((axis, 0), (axis, 1))
    # In a graph the axis stands among the numbers, before the bounds, and the step after them.
    return call.site is None or call.site.function != "slice" or at in (1, 2)


def same_places(plan: Plan, before: Call, now: Sequence[Any]) -> bool:
    """Whether a slice, by its arguments now, still takes what it took of what is left."""
    value, axis, size = _sliced(plan, before)
    kept = plan.kept_of_value(value).get(axis)
    if kept is None:
        return True
    taken, found = range(*_slice_of(before.args, size)), range(*_slice_of(now, len(kept)))
    wanted: list[int] = kept[list(found)].tolist()
    return [index for index in kept.tolist() if index in taken] == wanted


def _sliced(plan: Plan, call: Call) -> tuple[int, int, int]:
    """What a slice is taken of, along which axis, and how long that was."""
    value = call.inputs()[0]
    shape = plan.labelling.graph.metas[value].shape
    axis = (call.args[1] if len(call.args) > 1 else 0) % len(shape)
    return value, axis, shape[axis]


def _slice_of(args: Sequence[Any], size: int) -> tuple[int, int, int]:
    """Where a slice begins and ends, counted from the front, and its step."""
    return slice(*(*args[2:5], None, None, None)[:3]).indices(size)

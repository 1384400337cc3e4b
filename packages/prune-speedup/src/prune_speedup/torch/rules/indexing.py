"""Looking up by index: the axis that is looked up in keeps all its places.

table (100, 4)   axis 0:  fixed, since numbers point into it    axis 1:  1 2 3 4
table[[7, 7, 2]]  (3, 4)                                        axis 1:  1 2 3 4
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.joining import thinned
from prune_speedup.engine.labels import Array
from prune_speedup.engine.values import (
    CONSTANT,
    UNKNOWN,
    Group,
    Value,
    at_first,
    expanded,
    extended,
    squeezed,
)
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []


@rule("aten.embedding")
def embedding(flow: Flow, call: Call) -> Value:
    """Rows of a table."""
    table = flow.get(call.args[0])
    flow.pin(table, 0, "its rows are looked up by number")
    flow.fix_value(flow.get(call.args[1]), "it is a row number")
    shape = flow.result_shape(call)
    groups = tuple(
        Group(expanded(group.only(set(group.axes) - {0}).codes[0], shape))
        for group in table.groups
        if set(group.axes) - {0}
    )
    return _looked_up(flow, Value(shape, groups), [call.args[1]])


def _looked_up(flow: Flow, found: Value, places: Iterable[object]) -> Value:
    """What was found: zeros if there are only zeros; else, what it is the places have a part in."""
    told = [flow.get(place).constant for place in places if isinstance(place, Ref)]
    return found.at_least(CONSTANT if all(told) else UNKNOWN)


@rule("aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(flow: Flow, call: Call) -> list[Value | None]:
    """Sums, means or extremes of some rows of a table."""
    table = flow.get(call.args[0])
    flow.pin(table, 0, "its rows are looked up by number")
    for ref in call.inputs()[1:]:
        flow.fix_value(flow.values[ref], "it says which rows are taken, and how much of them")
    kept = [group.only({1}) for group in table.groups if 1 in group.axes]
    return [
        None
        if index is None
        else Value(flow.metas[index].shape, tuple(_rows(kept, flow.metas[index].shape, at)))
        for at, index in enumerate(call.outputs)
    ]


def _rows(groups: list[Group], shape: tuple[int, ...], at: int) -> list[Group]:
    """The labels of rows; what is returned beside them is no row, but may have their width."""
    if len(shape) != 2:
        return []
    made = [Group(expanded(group.codes[:1], shape)) for group in groups]
    return [group.with_states(UNKNOWN) if at else group.at_least(UNKNOWN) for group in made]


class Places(NamedTuple):
    """What a list of places, as `x[places]` takes it, does to the axes.

    Attributes:
        indexed: The axes that are looked up in.
        tiny: Places of the same kinds that all say 0, to run on labels.
        made: The axes of the result that stand for the places.
    """

    indexed: list[int]
    tiny: list[Array | None]
    made: range


def _places(flow: Flow, places: list[object], why: str) -> Places:
    indexed: list[int] = []
    tiny: list[Array | None] = []
    for place in places:
        if not isinstance(place, Ref):
            tiny.append(None)
            continue
        flow.fix_value(flow.get(place), why)
        shape = flow.metas[place.index].shape
        width, ndim = (len(shape), 1) if _is_mask(flow, place) else (1, len(shape))
        indexed += range(len(tiny), len(tiny) + width)
        tiny += [np.zeros([1] * ndim, dtype=np.int64)] * width
    count = max((each.ndim for each in tiny if each is not None), default=0)
    side_by_side = bool(indexed) and indexed[-1] - indexed[0] == len(indexed) - 1
    first = indexed[0] if side_by_side else 0
    return Places(indexed, tiny, range(first, first + count))


def _at(codes: Array, indexed: list[int], tiny: list[Array | None]) -> Array:
    """Codes at the first of the places; they do not differ between places."""
    found: Array = at_first(codes, indexed)[tuple(slice(None) if at is None else at for at in tiny)]
    return found


@rule("aten.index")
def index(flow: Flow, call: Call) -> Value:
    """Advanced indexing: the axes that are not indexed go through."""
    value, shape = flow.get(call.args[0]), flow.result_shape(call)
    indexed, tiny, _ = _places(flow, list(call.args[1]), "it says where to look")
    flow.pin_all(value, indexed, "it is looked up in")
    groups = []
    for group in value.groups:
        others = [axis for axis in range(value.ndim) if axis not in group.axes]
        thin = group.only(set(group.axes) - {*indexed})
        made = Group(expanded(_at(thin.codes, [*indexed, *others], tiny), shape))
        if made.axes:
            groups.append(made)
    return _looked_up(flow, Value(shape, tuple(groups)), call.args[1])


@rule("aten.index_put")
def put(flow: Flow, call: Call) -> Value:
    """Numbers go to places; the axes that are not indexed meet as they are."""
    indexed, tiny, made = _places(flow, list(call.args[1]), "it says where to write")
    others = set(range(flow.get(call.args[0]).ndim)) - {*indexed}
    value, source = flow.label_free(call.args[0], others), flow.get(call.args[2])
    flow.pin_all(value, indexed, "it is written to by number")
    groups = tuple(g.only(set(g.axes) - {*indexed}) for g in value.groups)
    groups = tuple(group for group in groups if group.axes)
    taken = [squeezed(_at(group.codes, indexed, tiny)) for group in groups]
    thin = _at(expanded(np.zeros(1, np.int64), value.shape), indexed, tiny).shape
    shape = np.broadcast_shapes(thin, source.shape)
    for axis in made:
        if (there := axis - len(shape) + source.ndim) >= 0:
            flow.pin(source, there, "it is written to places")
    target = Value(thin, tuple(map(Group, taken)), value.free - {*indexed}, zero=value.zero)
    met = flow.align([target, source], shape, all)
    put_in = Value(value.shape, tuple(flow.after(group, met) for group in groups))
    return _looked_up(flow, put_in, call.args[1])


@rule("aten.index_add", "aten.index_copy")
def write_rows(flow: Flow, call: Call) -> Value:
    """Rows go to places along one axis; the other axes meet as they are."""
    axis, source = call.args[1], flow.get(call.args[3])
    value = flow.label_free(call.args[0], {*range(source.ndim)} - {axis % max(source.ndim, 1)})
    flow.fix_value(flow.get(call.args[2]), "it says where to write")
    thin = []
    for each in (value, source):
        flow.pin(each, axis, "it is written to by number")
        at = axis % each.ndim
        groups = tuple(g.only(set(g.axes) - {at}) for g in each.groups if set(g.axes) - {at})
        thin.append(thinned(each, at, groups))
    met = flow.align(thin, thin[0].shape, all)
    groups = tuple(Group(extended(g.codes, value.shape)) for g in met.groups)
    return _looked_up(flow, Value(value.shape, groups), [call.argument("index")])


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def scatter(flow: Flow, call: Call) -> Value:
    """Numbers go to places along one axis; the other axes meet where all of them are told alike."""
    places = flow.get(call.args[2])
    axis = call.args[1] % max(places.ndim, 1)
    value = flow.label_free(call.args[0], {*range(places.ndim)} - {axis})
    source = flow.get(call.args[3]) if isinstance(call.args[3], Ref) else None
    flow.fix_value(places, "it says where to write")
    thin = []
    for each in (value, source):
        if each is None:
            continue
        for at, (size, other) in enumerate(zip(each.shape, places.shape, strict=True)):
            copies = size == other and at in places.free
            if at == axis or (size != 1 and not copies):
                flow.pin(each, at, "it is written to by number")
        groups = tuple(g.only(set(g.axes) - {axis}) for g in each.groups if set(g.axes) - {axis})
        thin.append(thinned(each, axis, groups))
    met = flow.align(thin, thin[0].shape, all)
    groups = tuple(Group(extended(g.codes, value.shape)) for g in met.groups)
    made = _looked_up(flow, Value(value.shape, groups), [call.argument("index")])
    return made if isinstance(call.args[3], Ref) else made.never_zero(UNKNOWN)


def _is_mask(flow: Flow, ref: Ref) -> bool:
    return flow.metas[ref.index].dtype in (torch.bool, torch.uint8)


@rule("aten.index_select", "aten.gather")
def index_select(flow: Flow, call: Call) -> Value:
    """Places along one axis."""
    value, axis = flow.get(call.args[0]), call.args[1]
    places = flow.get(call.args[2])
    shape = flow.result_shape(call)
    flow.fix_value(places, "it says where to look")
    flow.pin(value, axis, "it is looked up in")
    if call.name != "index_select":
        for at, (size, other) in enumerate(zip(value.shape, places.shape, strict=True)):
            copies = size == other and at in places.free
            if at != axis % value.ndim and size != 1 and not copies:
                flow.pin(value, at, "it is looked up by a tensor that has all of it")
    groups = []
    for group in value.groups:
        codes = at_first(group.only(set(group.axes) - {axis % value.ndim}).codes, (axis,))
        codes = at_first(codes, [at for at, size in enumerate(shape) if codes.shape[at] != size])
        made = Group(expanded(codes, shape))
        if made.axes:
            groups.append(made)
    return _looked_up(flow, Value(shape, tuple(groups)), [call.argument("index")])


@rule("aten.masked_scatter")
def masked_scatter(flow: Flow, call: Call) -> Value:
    """Rows of the one in the places of another's that are marked, as images among words.

    `words (2, 7, H)`, `marked (2, 7, 1)` and `images (5, H)`: the numbers of the images are taken
    in order, so the k-th marked place gets row k. H may shrink, in both at once; no place and no
    row may go.
    """
    value, marked, source = (flow.get(argument) for argument in call.args[:3])
    last = value.ndim - 1
    rows = value.shape[-1:] == source.shape[-1:] and marked.ndim > 0
    if not rows or not marked.any_size(marked.ndim - 1):
        for each in (value, marked, source):
            flow.fix_value(each, "its numbers are counted off")
        return Value(flow.result_shape(call))
    flow.fix_value(marked, "it says which places are overwritten")
    flow.pin_all(value, range(last), "some of its places are overwritten")
    flow.pin_all(source, range(source.ndim - 1), "it is read row by row")
    group = source.group_at(-1)
    row = (
        [] if group is None else [Group(at_first(group.codes, range(source.ndim - 1)).reshape(-1))]
    )
    of_source = Value(
        source.shape[-1:], tuple(row), frozenset({0} if source.any_size(-1 % source.ndim) else ())
    )
    return flow.align([value, of_source], flow.result_shape(call), all)

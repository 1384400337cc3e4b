"""Looking up by index: the axis that is looked up in keeps all its places."""

import torch

from prune_core.graph.flow import Flow
from prune_core.graph.ir import Call, Ref
from prune_core.graph.rules.movement import thinned
from prune_core.graph.rules.registry import rule
from prune_core.graph.value import UNKNOWN, Group, Value, extended

__all__: list[str] = []


@rule("aten.embedding")
def embedding(flow: Flow, call: Call) -> Value:
    """Rows of a table."""
    table = flow.get(call.args[0])
    flow.pin(table, 0, "its rows are looked up by number")
    flow.fix_value(flow.get(call.args[1]), "it is a row number")
    shape = flow.result_shape(call)
    groups = tuple(
        Group(group.codes[0].expand(shape)) for group in table.groups if set(group.axes) - {0}
    )
    return Value(shape, groups)


@rule("aten.index")
def index(flow: Flow, call: Call) -> Value:
    """Advanced indexing: the axes that are not indexed go through."""
    value, places = flow.get(call.args[0]), list(call.args[1])
    shape = flow.result_shape(call)
    indexed: list[int] = []
    tiny: list[torch.Tensor | None] = []
    axis = 0
    for place in places:
        if not isinstance(place, Ref):
            tiny.append(None)
            axis += 1
            continue
        meta = flow.metas[place.index]
        flow.fix_value(flow.get(place), "it says where to look")
        mask = _is_mask(flow, place)
        width, ndim = (len(meta.shape), 1) if mask else (1, len(meta.shape))
        indexed += range(axis, axis + width)
        tiny += [torch.zeros([1] * ndim, dtype=torch.int64)] * width
        axis += width
    flow.pin_all(value, indexed, "it is looked up in")
    groups = []
    for group in value.groups:
        labels = group.codes
        for at in range(value.ndim):
            if at in indexed or at not in group.axes:
                labels = labels.narrow(at, 0, 1)
        made = torch.ops.aten.index.Tensor(labels, tiny).expand(shape)
        if Group(made).axes:
            groups.append(Group(made))
    return Value(shape, tuple(groups))


@rule("aten.index_add", "aten.index_copy")
def write_rows(flow: Flow, call: Call) -> Value:
    """Rows go to places along one axis; the other axes meet as they are."""
    value, axis, source = flow.get(call.args[0]), call.args[1], flow.get(call.args[3])
    flow.fix_value(flow.get(call.args[2]), "it says where to write")
    thin = []
    for each in (value, source):
        flow.pin(each, axis, "it is written to by number")
        at = axis % each.ndim
        groups = tuple(g.only(set(g.axes) - {at}) for g in each.groups if set(g.axes) - {at})
        thin.append(thinned(each, at, groups))
    met = flow.align(thin, thin[0].shape, all)
    return Value(value.shape, tuple(Group(extended(g.codes, value.shape)) for g in met.groups))


@rule("aten.index_put")
def put(flow: Flow, call: Call) -> Value:
    """Numbers go to places; whoever has labels there keeps them, unless it is only a number."""
    value, places, source = flow.get(call.args[0]), call.args[1], flow.get(call.args[2])
    for ref in places:
        if isinstance(ref, Ref):
            flow.fix_value(flow.get(ref), "it says where to write")
    flow.fix_value(source, "it is written to places")
    masks = [ref for ref in places if isinstance(ref, Ref) and _is_mask(flow, ref)]
    indexed = sum(len(flow.metas[ref.index].shape) for ref in masks) + len(places) - len(masks)
    if source.shape in ((), (1,)):
        flow.pin_all(value, range(indexed), "it is written to by number")
        groups = tuple(g.only(set(g.axes) - set(range(indexed))) for g in value.groups)
        return Value(
            value.shape, tuple(g.with_states(UNKNOWN) for g in groups if g.axes), constant=False
        )
    flow.fix_value(value, "numbers are written to places in it")
    return Value(value.shape)


def _is_mask(flow: Flow, ref: Ref) -> bool:
    return flow.metas[ref.index].dtype in (torch.bool, torch.uint8)


@rule("aten.index_select", "aten.gather", "aten.take_along_dim")
def index_select(flow: Flow, call: Call) -> Value:
    """Places along one axis."""
    value, axis = flow.get(call.args[0]), call.args[1]
    places = flow.get(call.args[2])
    shape = flow.result_shape(call)
    flow.fix_value(places, "it says where to look")
    flow.pin(value, axis, "it is looked up in")
    if call.name != "index_select":
        for at, (size, other) in enumerate(zip(value.shape, places.shape, strict=True)):
            if at != axis % value.ndim and size != 1 and (other != 1 or size != other):
                flow.pin(value, at, "it is looked up by a tensor that has all of it")
    groups = []
    for group in value.groups:
        labels = group.codes.narrow(axis, 0, 1)
        for at, size in enumerate(shape):
            if labels.shape[at] != size:
                labels = labels.narrow(at, 0, 1)
        made = Group(labels.expand(shape))
        if made.axes:
            groups.append(made)
    return Value(shape, tuple(groups))

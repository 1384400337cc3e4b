"""Looking up by index: the axis that is looked up in keeps all its places."""

from prune_core.graph.flow import Flow
from prune_core.graph.ir import Call, Ref
from prune_core.graph.rules.registry import rule
from prune_core.graph.value import Group, Value

import torch

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
        width = len(meta.shape) if meta.dtype in (torch.bool, torch.uint8) else 1
        ndim = 1 if width != 1 or meta.dtype in (torch.bool, torch.uint8) else len(meta.shape)
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

"""What a layer's config and attributes say of sizes, once a plan has been carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prune_speedup.engine.graph import Call
from prune_tf.speedup.plan import Plan
from prune_tf.speedup.reshapes import Shares
from prune_tf.speedup.rules.tools import inputs

__all__ = ["SHAPED", "counts_of", "settings_of", "shares_of"]

SHAPED = ("EinsumDense", "SimpleRNN", "GRU", "LSTM")
"""Layers of which a copy is cut to shape, because their config does not say how large they are."""

Settings = dict[str, Any]


def settings_of(op: Any, plan: Plan) -> Settings:
    """Return the sizes that a layer or operation has to be told.

    Args:
        op: A layer or operation of the model.
        plan: What goes.
    """
    recorded = plan.recorded
    position = recorded.first.get(id(op))
    find = None if position is None else _SETTINGS.get(recorded.calls[position].kind)
    if find is None:
        return _of_cell(op, plan)
    assert position is not None
    return find(op, plan, recorded.graph.calls[position])


def counts_of(layer: Any, plan: Plan) -> Settings:
    """Return what the attributes have to be by which a layer's Python counts channels."""
    return {
        name: int((~plan.cut.removed[labels]).sum())
        for (_, name), (owner, labels) in plan.rules.counted.items()
        if owner is layer
    }


def shares_of(layer: Any, plan: Plan) -> Shares:
    """Return what the reshapes of a layer's Python are told of the sizes that they make."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for (_, number), (owner, axes) in plan.rules.told.items():
        for axis, labels in axes.items() if owner is layer else ():
            left = int((~plan.cut.removed[labels]).sum())
            if left < len(labels):
                found.setdefault(str(number), {})[str(axis)] = (left, len(labels))
    return found


def _last(name: str, size: str, axis: int = -1) -> Callable[[Any, Plan, Call], Settings]:
    def found(op: Any, plan: Plan, call: Call) -> Settings:
        return {size: plan.cut.shape(call.argument(name).index)[axis]}

    return found


def _convolution(op: Any, plan: Plan, call: Call) -> Settings:
    filters = plan.cut.shape(call.argument("kernel").index)[-1]
    if op.groups == 1:
        return {"filters": filters}
    before = plan.recorded.graph.metas[call.argument("kernel").index].shape[-1]
    return {"filters": filters, "groups": op.groups * filters // before}


def _group_norm(op: Any, plan: Plan, call: Call) -> Settings:
    [value, *_] = inputs(call)
    axis = op.axis
    before, after = plan.recorded.graph.metas[value.index].shape[axis], plan.cut.shape(value.index)
    return {"groups": op.groups * after[axis] // before}


def _reshape(op: Any, plan: Plan, call: Call) -> Settings:
    """As a layer and as an operation; only the latter says how many samples there are."""
    name = "target_shape" if hasattr(op, "target_shape") else "newshape"
    target = list(getattr(op, name))
    [output] = call.outputs
    assert output is not None
    kept = plan.cut.kept_of_value(output)
    lead = len(plan.recorded.graph.metas[output].shape) - len(target)
    for axis, indices in kept.items():
        if target[axis - lead] != -1:
            target[axis - lead] = len(indices)
    return {name: tuple(target)} if kept else {}


def _einsum(op: Any, plan: Plan, call: Call) -> Settings:
    [output] = call.outputs
    assert output is not None
    made: Settings = {}
    kept = plan.cut.kept_of_value(output)
    rank = len(plan.recorded.graph.metas[output].shape)
    for name in ("partial_output_shape", "full_output_shape"):
        shape = getattr(op, name, None)
        if shape is not None:
            sizes = list(shape)
            for axis, indices in kept.items():
                at = axis - rank
                if len(sizes) >= -at and sizes[at] is not None:
                    sizes[at] = len(indices)
            made[name] = tuple(sizes)
    return made


def _recurrent(op: Any, plan: Plan, call: Call) -> Settings:
    return _units(op, plan.cut.shape(call.argument("recurrent_kernel").index)[0])


def _of_cell(op: Any, plan: Plan) -> Settings:
    """A cell has the sizes of the layer that runs it."""
    fed = getattr(op, "recurrent_kernel", None)
    kept = {} if fed is None else plan.kept_of(fed)
    return _units(op, len(kept[0])) if 0 in kept else {}


def _units(op: Any, units: int) -> Settings:
    made: Settings = {"units": units} if "units" in vars(op) else {}
    for name in ("state_size", "output_size"):
        value = vars(op).get(name)
        if isinstance(value, int):
            made[name] = units
        elif isinstance(value, list | tuple):
            made[name] = [units] * len(value)
    return made


_SETTINGS: dict[str, Callable[[Any, Plan, Call], Settings]] = {
    "Dense": _last("kernel", "units"),
    "EinsumDense": _einsum,
    "GroupNormalization": _group_norm,
    "Reshape": _reshape,
    **{f"Conv{n}D": _convolution for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": _last("kernel", "filters", -2) for n in (1, 2, 3)},
    **{f"SeparableConv{n}D": _last("pointwise_kernel", "filters") for n in (1, 2)},
    **dict.fromkeys(("SimpleRNN", "GRU", "LSTM"), _recurrent),
}

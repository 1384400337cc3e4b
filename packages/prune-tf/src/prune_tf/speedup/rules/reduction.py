"""Fewer axes, or the same axes with a share of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.rules import Declined
from prune_speedup.engine.values import CONSTANT, Value, extended
from prune_speedup.engine.values import Group as _Group
from prune_tf.speedup.rules.registry import rule
from prune_tf.speedup.rules.tools import given, inputs

__all__: list[str] = []

_LIKE_THEM = ("Mean", "Max", "Min", "Amax", "Amin")
"""What of equal numbers is one of them, however many there are."""


@rule("Mean", "Sum", "Max", "Min", "Amax", "Amin", "Var", "Std", "Logsumexp", "Prod", "Median")
@rule("All", "Any", "Argmax", "Argmin", "CountNonzero")
def reduction(flow: Flow, call: Call) -> Value:
    """A sum may lose what is zero; anything else runs over all that there was."""
    value, shape = given(flow, call), flow.result_shape(call)
    why = "it runs over all of them"
    kind = "sum" if call.name == "Sum" else "other"
    keep = len(shape) == value.ndim
    made = flow.reduce(value, _axes(call.op.axis, value.ndim), keep=keep, kind=kind, why=why)
    if call.name == "Sum":
        return made
    return made if call.name in _LIKE_THEM else made.never_zero()


@rule("Softmax", "LogSoftmax")
def softmax(flow: Flow, call: Call) -> Value:
    """Shares of a whole along some axes; along the others each place is by itself."""
    value, *masks = (flow.get(ref) for ref in inputs(call))
    over = _axes(call.op.axis, value.ndim)
    flow.pin_all(value, over, "it takes shares of all of them")
    # The layer may be given a mask beside what it takes shares of.
    made = flow.align([value, *masks], value.shape, all)
    for axis, size in enumerate(value.shape):
        lead = value.ndim - axis
        if any(mask.ndim >= lead and mask.shape[-lead] == size > 1 for mask in masks):
            flow.pin(made, axis, "it is given a mask for them")
    return made.never_zero()


@rule("TopK", "Sort", "Argsort", "Cumsum", "Cumprod")
def in_order(flow: Flow, call: Call) -> list[Value]:
    """What comes out depends on all places along one axis; along others each is by itself."""
    value, axis = given(flow, call), getattr(call.op, "axis", -1)
    if axis is None:
        raise Declined("it orders all that there is")
    [over] = _axes(axis, value.ndim)
    flow.pin(value, over, "it orders all of them")
    made = []
    for at in range(len(call.outputs)):
        shape = flow.result_shape(call, at)
        kept = [group for group in value.groups if over not in group.axes]
        each = Value(shape, tuple(_Group(extended(group.codes, shape)) for group in kept))
        numbers = call.name in ("Cumsum", "Cumprod") or (at == 0 and call.name != "Argsort")
        made.append(each.at_least(CONSTANT) if numbers else each.never_zero())
    return made


def _axes(axis: Any, rank: int) -> list[int]:
    axes = range(rank) if axis is None else np.atleast_1d(axis).tolist()
    return sorted(each % rank for each in axes)

"""Values one behind the other, along an axis that there is or a new one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.joining import join
from prune_speedup.engine.values import Group, Value
from prune_tf.speedup.rules.registry import rule
from prune_tf.speedup.rules.tools import operand

__all__: list[str] = []


@rule("Concatenate")
def concatenate(flow: Flow, call: Call) -> Value:
    """Channels side by side, or the same channels at more places."""
    shape = flow.result_shape(call)
    pieces = [operand(flow, each) for each in call.args[0]]
    return join(flow, pieces, call.op.axis % len(shape), shape)


@rule("Stack")
def stack(flow: Flow, call: Call) -> Value:
    """As concatenation along an axis that is new, so that the others go together."""
    shape = flow.result_shape(call)
    axis = call.op.axis % len(shape)
    pieces = []
    for value in (operand(flow, each) for each in call.args[0]):
        sizes = (*value.shape[:axis], 1, *value.shape[axis:])
        groups = tuple(Group(np.expand_dims(group.codes, axis)) for group in value.groups)
        pieces.append(replace(value, shape=sizes, groups=groups))
    return join(flow, pieces, axis, shape)

"""Recurrent layers: a unit is a column of each gate, and a row of what it is fed back through."""

from __future__ import annotations

import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.rules import Declined
from prune_speedup.engine.values import UNKNOWN, ZERO, Group, Value, encode
from prune_tf.speedup.rules.registry import Rules, rule
from prune_tf.speedup.rules.tools import given, inputs, placed

__all__ = ["GATES"]

GATES = {"SimpleRNN": (1, 0), "GRU": (3, 2), "LSTM": (4, 2)}
"""How many gates there are, and which of them makes the candidate for a unit's new value.

A unit starts at 0 and stays there if its candidate is always 0, whatever the other gates do.
"""


@rule("SimpleRNN", "GRU", "LSTM")
def recurrent(flow: Flow, call: Call) -> list[Value]:
    """Follow a layer with one cell that starts from zeros."""
    layer, units = call.op, call.op.units
    shared = isinstance(flow.rules, Rules) and flow.rules.recorded.is_shared(layer)
    if len(inputs(call)) != 1 or shared:
        raise Declined("it is called in a way that is not followed")
    value = given(flow, call)
    flow.pin_all(value, [0, 1], "it runs over them")
    count, candidate = GATES[call.name]
    vectors = [flow.get(call.argument(name)) for name in ("kernel", "recurrent_kernel")]
    if isinstance(bias := call.argument("bias"), Ref):
        vectors.append(flow.get(bias))
        flow.pin_all(vectors[-1], range(vectors[-1].ndim - 1), "there is one for each product")
    silent = np.full(units, layer.stateful or not _keeps_zero(layer))
    silent = ~silent
    own = None
    for vector in vectors:
        group = vector.group_at(vector.ndim - 1)
        if group is None:
            raise Declined("it has one unit")
        gates = group.compact().reshape(count, units)
        own = gates[0] if own is None else own
        flow.labels.tie(gates, own[None], "a unit is a column of each gate")
        silent &= group.states().reshape(count, units)[candidate] == ZERO
    assert own is not None
    hidden = Value((units,), (Group(encode(own, np.where(silent, ZERO, UNKNOWN))),))
    fed = vectors[1]
    flow.contract(hidden, fed, "i,io->o")
    flow.contract(value, vectors[0], "abi,io->abo")
    shapes = (flow.result_shape(call, at) for at in range(len(call.outputs)))
    return [placed(hidden, len(shape) - 1, shape) for shape in shapes]


def _keeps_zero(layer: object) -> bool:
    return getattr(getattr(layer, "activation", None), "__name__", "") in ("tanh", "relu", "linear")

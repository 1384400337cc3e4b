"""Recurrent layers: a unit is a column of each gate, and a row of what it is fed back through."""

from __future__ import annotations

from typing import Any

import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow, Use
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []

GATES = {"SimpleRNN": (1, 0), "GRU": (3, 2), "LSTM": (4, 2)}
"""How many gates there are, and which of them makes the candidate for a unit's new value.

A unit starts at 0 and stays there if its candidate is always 0, whatever the other gates do.
"""


@rule("SimpleRNN", "GRU", "LSTM", wide=True)
def recurrent(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Follow a layer with one cell that starts from zeros."""
    layer, cell = call.op, call.op.cell
    count, candidate = GATES[call.kind]
    if len(call.inputs) != 1 or analysis.is_shared(layer):
        return None
    taken = analysis.flow(call.inputs[0]).at(-1)
    if taken is None:
        return None
    for part in analysis.flow(call.inputs[0]).parts:
        if part.axis != -1:
            analysis.labels.fix(part.labels, f"{layer.name!r} runs over them")
    kernel, fed = (analysis.weights(cell, name) for name in ("kernel", "recurrent_kernel"))
    labels = analysis.own(layer, layer.units)
    gates = np.tile(labels, count)
    analysis.axes[id(cell)]["", 0] = gates
    analysis.lies(cell, "kernel", 0, taken.labels)
    analysis.lies(cell, "kernel", 1, gates)
    analysis.lies(cell, "recurrent_kernel", 0, labels)
    analysis.lies(cell, "recurrent_kernel", 1, gates)
    made = slice(candidate * layer.units, (candidate + 1) * layer.units)
    silent = ~(kernel[:, made].any(axis=0) | fed[:, made].any(axis=0))
    if layer.use_bias:
        bias = analysis.weights(cell, "bias")
        analysis.lies(cell, "bias", bias.ndim - 1, gates)
        silent &= ~bias.reshape(-1, bias.shape[-1])[:, made].any(axis=0)
    activation = getattr(layer.activation, "__name__", "")
    if activation not in ("tanh", "relu", "linear") or layer.stateful:
        silent &= False
    constants = np.where(silent, 0.0, np.nan)
    uses = ((taken, kernel), (Flow(labels, constants), fed))
    for flow, weight in uses:
        matters = np.asarray(weight.any(axis=1))
        analysis.uses.append(Use(layer, flow.labels, flow.constants, matters, None, 0, None))
    analysis.shaped[id(layer)] = call
    for owner in (layer, cell):
        analysis.attributes[id(owner)] |= _sizes(owner, labels)
    if not layer.return_sequences and not layer.return_state:
        return [Flow(labels, constants)]
    return [Flow(labels, constants) for _ in call.outputs]


def _sizes(owner: Any, labels: np.ndarray[Any, Any]) -> dict[str, Any]:
    def count(plan: Any) -> int:
        return len(plan.kept(labels))

    found: dict[str, Any] = {}
    if "units" in vars(owner):
        found["units"] = count
    for name in ("state_size", "output_size"):
        value = vars(owner).get(name)
        if isinstance(value, int):
            found[name] = count
        elif isinstance(value, list | tuple):
            times = len(value)
            found[name] = lambda plan, times=times: [count(plan)] * times
    return found

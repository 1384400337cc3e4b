"""What only moves data is run, as it is, on labels instead of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []

Array = np.ndarray[Any, Any]


@rule("Flatten", "Reshape")
def reshape(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Other axes for the same values."""
    [source], [result] = call.inputs, call.outputs
    flow = analysis.flow(source)
    if getattr(call.op, "data_format", "") == "channels_first":
        return None
    before, after = source.shape[1:], result.shape[1:]
    if None in before or None in after or not before or not after:
        return None
    if prod(before) != prod(after):  # Samples become something else, or it becomes samples.
        return None
    moved = np.reshape(_spread(flow.labels, flow.axis, before), after)
    axis = _varying(moved)
    if axis is None:
        return None
    constants = _spread(flow.constants, flow.axis, before).reshape(after)
    line = tuple(slice(None) if a == axis else 0 for a in range(len(after)))
    found = Flow(moved[line], constants[line], axis - len(after))
    return _recorded(analysis, call, found)


@rule("Permute")
def permute(analysis: Analysis, call: Call) -> list[Flow] | None:
    """The same axes in another order."""
    flow, rank = analysis.flow(call.inputs[0]), len(call.inputs[0].shape)
    axis = call.op.dims.index(rank + flow.axis) + 1
    return [Flow(flow.labels, flow.constants, axis - rank)]


def _recorded(analysis: Analysis, call: Call, flow: Flow) -> list[Flow]:
    if call.kind == "Reshape":
        if analysis.is_shared(call.op):
            analysis.labels.fix(flow.labels, f"{call.op.name!r} is called in several places")
        analysis.reshaped[id(call.op)] = (flow.axis, flow.labels)
    return [flow]


def _spread(values: Array, axis: int, shape: Sequence[int]) -> Array:
    line = [1] * len(shape)
    line[axis] = -1
    return np.broadcast_to(values.reshape(line), shape)


def _varying(labels: Array) -> int | None:
    """Return the one axis along which labels differ, or None when there are several."""
    axes = [
        axis
        for axis, size in enumerate(labels.shape)
        if size > 1 and (labels != labels.take([0], axis)).any()
    ]
    if len(axes) > 1:
        return None
    return axes[0] if axes else labels.ndim - 1

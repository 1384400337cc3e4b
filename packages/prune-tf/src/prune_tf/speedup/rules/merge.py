"""Where tensors meet: sums, products, concatenations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import keras
import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []

Array = np.ndarray[Any, Any]


def _product(first: Array, second: Array) -> Array:
    # 0 times anything is 0, also what varies.
    return np.where((first == 0) | (second == 0), 0.0, first * second)


@rule("Add")
def add(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Channels that are added to each other go together."""
    return _together(analysis, call, np.add)


@rule("Subtract")
def subtract(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition."""
    return _together(analysis, call, np.subtract)


@rule("Multiply")
def multiply(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition; a gate that is 0 closes whatever comes."""
    return _together(analysis, call, _product)


@rule("Maximum")
def maximum(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition."""
    return _together(analysis, call, np.maximum)


@rule("Minimum")
def minimum(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition."""
    return _together(analysis, call, np.minimum)


@rule("Average")
def average(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition, divided by how many there are."""
    flows = _together(analysis, call, np.add)
    if flows is None:
        return None
    return [Flow(flow.labels, flow.constants / len(call.inputs)) for flow in flows]


@rule("CustomScaleLayer")
def scaled_sum(analysis: Analysis, call: Call) -> list[Flow] | None:
    """`first + second · scale`, the residual of Inception-ResNet."""
    scale = float(call.op.scale)
    return _together(analysis, call, lambda first, second: first + scale * second)


def _together(
    analysis: Analysis, call: Call, combine: Callable[[Array, Array], Array]
) -> list[Flow] | None:
    (args, kwargs) = call.arguments
    operands = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
    tensors = {id(tensor) for tensor in call.inputs}
    if kwargs or len({len(tensor.shape) for tensor in call.inputs}) != 1:
        return None
    flows = []
    for operand in operands:
        if id(operand) in tensors:
            flows.append(analysis.flow(operand))
        elif isinstance(operand, int | float):
            flows.append(Flow(np.empty(0, int), np.array([float(operand)])))
        else:
            return None
    wide = [flow for flow in flows if len(flow.labels) > 1]
    if not wide or len({(len(flow.labels), flow.axis) for flow in wide}) != 1:
        return None
    for flow in wide[1:]:
        analysis.labels.tie(wide[0].labels, flow.labels)
    for flow in flows:
        if len(flow.labels) == 1:
            # One channel that is spread over many belongs to none of them.
            analysis.labels.fix(flow.labels, f"{call.op.name!r} spreads it over many channels")
    constants: Array = reduce(combine, [flow.constants for flow in flows])
    return [Flow(wide[0].labels, constants, wide[0].axis)]


@rule("Concatenate")
def concatenate(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Channels side by side, or the same channels at more places."""
    flows, rank = _operands(analysis, call), len(call.inputs[0].shape)
    if any(flow.axis != -1 for flow in flows):
        return None
    if call.op.axis in (-1, rank - 1):
        return [
            Flow(
                np.concatenate([flow.labels for flow in flows]),
                np.concatenate([flow.constants for flow in flows]),
            )
        ]
    for flow in flows[1:]:
        analysis.labels.tie(flows[0].labels, flow.labels)
    return [Flow(flows[0].labels, _agreeing(flows))]


def _operands(analysis: Analysis, call: Call) -> list[Flow]:
    """What is known of all that is put side by side; arrays are not among a call's inputs."""
    tensors = {id(tensor) for tensor in call.inputs}
    return [
        analysis.flow(each) if id(each) in tensors else analysis.opaque(each)
        for each in keras.tree.flatten(call.arguments)
        if hasattr(each, "shape")
    ]


def _agreeing(flows: Sequence[Flow]) -> Array:
    """Return the constants on which all flows agree."""
    rows = np.stack([flow.constants for flow in flows])
    return np.where((rows == rows[0]).all(axis=0), rows[0], np.nan)

"""What treats each value by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.activations import (
    MEETING,
    OPERATIONS,
    activated,
    is_elementwise,
)
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []

Array = np.ndarray[Any, Any]


@rule(
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "Identity",
    "StopGradient",
    "ConvertToTensor",
    wide=True,
)
def at_rest(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Nothing happens at inference."""
    return analysis.inputs(call)[: len(call.outputs)]


@rule("Activation", wide=True)
def activation(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Apply a function by its name."""
    if not is_elementwise(call.op.activation):
        return None
    return _each_part(analysis, call, lambda c: activated(call.op.activation, c))


@rule("ReLU", "LeakyReLU", "ELU", wide=True)
def layer_of_its_own(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Apply the layer itself to the constants."""
    return _each_part(analysis, call, lambda c: activated(call.op, c))


@rule(*sorted(OPERATIONS - MEETING), wide=True)
def operation(analysis: Analysis, call: Call) -> list[Flow] | None:
    """An activation called as an operation, such as `keras.ops.relu(x)`."""
    return _each_part(analysis, call, lambda c: activated(call.op, c))


@rule("PReLU")
def learned(analysis: Analysis, call: Call) -> list[Flow] | None:
    """A slope for each channel, and perhaps for each place."""
    [flow] = analysis.inputs(call)
    slopes = analysis.weights(call.op, "alpha")
    if flow.axis != -1 or slopes.shape[-1] != len(flow.labels):
        return None
    analysis.lies(call.op, "alpha", slopes.ndim - 1, flow.labels)
    flat = slopes.reshape(-1, slopes.shape[-1])
    same = (flat == flat[0]).all(axis=0)
    negative = np.where(same, flat[0] * flow.constants, np.nan)
    return [Flow(flow.labels, np.where(flow.constants >= 0, flow.constants, negative))]


@rule("Rescaling", wide=True)
def rescaling(analysis: Analysis, call: Call) -> list[Flow] | None:
    """`x · scale + offset`, with one number for all channels."""
    scale, offset = call.op.scale, call.op.offset
    if not all(np.isscalar(value) for value in (scale, offset)):
        return None
    return _each_part(analysis, call, lambda c: c * scale + offset)


@rule("Cast", wide=True)
def cast(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Numbers of another type."""
    kind = keras.backend.standardize_dtype(call.outputs[0].dtype)
    wide = kind in ("float32", "float64")
    return _each_part(analysis, call, lambda c: np.where(wide | (c == 0), c, np.nan))


@rule("LogicalNot", "Isnan", "Isinf", "Isfinite", wide=True)
def question(analysis: Analysis, call: Call) -> list[Flow] | None:
    """What is true or false is not followed."""
    return _each_part(analysis, call, lambda c: np.full(len(c), np.nan))


@rule("ZerosLike", wide=True)
def zeros(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Zeros wherever something was."""
    return _each_part(analysis, call, lambda c: np.zeros(len(c)))


@rule("OnesLike", wide=True)
def ones(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Ones wherever something was."""
    return _each_part(analysis, call, lambda c: np.ones(len(c)))


@rule("OneHot", wide=True)
def one_hot(analysis: Analysis, call: Call) -> list[Flow] | None:
    """A new axis, of which the numbers choose one place each."""
    flow, rank = analysis.flow(call.inputs[0]), len(call.outputs[0].shape)
    new = call.op.axis % rank - rank
    parts = [
        replace(p, constants=np.full(len(p.labels), np.nan), axis=p.axis - (p.axis <= new))
        for p in flow.parts
    ]
    return [analysis.made(call.outputs[0], parts)]


def _each_part(
    analysis: Analysis, call: Call, change: Callable[[Array], Array]
) -> list[Flow] | None:
    if len(call.inputs) != 1:
        return None
    flow = analysis.flow(call.inputs[0])
    parts = [replace(part, constants=change(part.constants)) for part in flow.parts]
    return [analysis.made(call.outputs[0], parts)]

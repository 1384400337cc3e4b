"""What treats each value by itself."""

from __future__ import annotations

import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.activations import activated, is_elementwise
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []


@rule(
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "Identity",
)
def at_rest(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Nothing happens at inference."""
    return analysis.inputs(call)


@rule("Activation")
def activation(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Apply a function by its name."""
    if not is_elementwise(call.op.activation):
        return None
    [flow] = analysis.inputs(call)
    return [Flow(flow.labels, activated(call.op.activation, flow.constants), flow.axis)]


@rule("ReLU", "LeakyReLU", "ELU")
def layer_of_its_own(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Apply the layer itself to the constants."""
    [flow] = analysis.inputs(call)
    return [Flow(flow.labels, activated(call.op, flow.constants), flow.axis)]


@rule("Relu", "Relu6", "Sigmoid", "Silu", "Gelu", "HardSigmoid", "HardSilu", "Tanh")
def operation(analysis: Analysis, call: Call) -> list[Flow] | None:
    """An activation called as an operation, such as `keras.ops.relu(x)`."""
    [flow] = analysis.inputs(call)
    return [Flow(flow.labels, activated(call.op, flow.constants), flow.axis)]


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


@rule("Rescaling")
def rescaling(analysis: Analysis, call: Call) -> list[Flow] | None:
    """`x · scale + offset`, with one number for all channels."""
    [flow] = analysis.inputs(call)
    if not all(np.isscalar(value) for value in (call.op.scale, call.op.offset)):
        return None
    constants = flow.constants * call.op.scale + call.op.offset
    return [Flow(flow.labels, constants, flow.axis)]

"""What treats each place by itself; where several tensors meet, their channels go together.

a (2, 4)   axis 1:  1 2 3 4  ┐
b (4,)     axis 0:  5 6 7 8  ┘ tied: 1=5 2=6 3=7 4=8
a + b      axis 1:  1 2 3 4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.rules import Declined
from prune_speedup.engine.values import Group, Value
from prune_tf.speedup.rules.activations import OPERATIONS, is_elementwise
from prune_tf.speedup.rules.registry import rule
from prune_tf.speedup.rules.tools import arguments, given, inputs, operand, stays_zero

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
    "StopGradient",
    "ConvertToTensor",
)
def at_rest(flow: Flow, call: Call) -> list[Value]:
    """Nothing happens at inference."""
    return [flow.get(ref) for ref in inputs(call)][: len(call.outputs)]


@rule(*sorted(OPERATIONS), "ReLU", "LeakyReLU", "ELU", "Cast", "ZerosLike", "OnesLike")
@rule("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual", "Where")
@rule("LogicalAnd", "LogicalOr", "LogicalXor", "LogicalNot", "Isnan", "Isinf", "Isfinite")
@rule("Average", "CustomScaleLayer")
def elementwise(flow: Flow, call: Call) -> Value:
    """Tie what meets; whether zeros stay zeros is asked of the operation itself."""
    leaves = keras.tree.flatten(arguments(call))
    refs = [each for each in leaves if isinstance(each, Ref)]
    arrays = [each for each in leaves if hasattr(each, "shape")]
    shape = flow.result_shape(call)
    operands = [_merged(flow.get(ref), call, len(shape)) for ref in refs]
    operands += [operand(flow, each) for each in arrays]
    return flow.align(operands, shape, stays_zero(flow, call))


def _merged(value: Value, call: Call, ndim: int) -> Value:
    """What a merging layer of Keras meets: axes that are missing come behind the samples."""
    if not isinstance(call.op, keras.layers.Layer) or value.ndim in (0, ndim):
        return value
    at = tuple(range(1, 1 + ndim - value.ndim))
    shape = (value.shape[0], *[1] * len(at), *value.shape[1:])
    groups = tuple(Group(np.expand_dims(group.codes, at)) for group in value.groups)
    return Value(shape, groups, constant=value.constant)


@rule("Activation")
def activation(flow: Flow, call: Call) -> Value | Sequence[Value | None]:
    """A function by its name, or one of the user's own."""
    if not is_elementwise(call.op.activation):
        raise Declined("it applies a function that may mix channels")
    return elementwise(flow, call)


@rule("Rescaling")
def rescaling(flow: Flow, call: Call) -> Value | Sequence[Value | None]:
    """`x · scale + offset`, with one number for all channels."""
    if not all(np.isscalar(each) for each in (call.op.scale, call.op.offset)):
        raise Declined("it has a number for each channel")
    return elementwise(flow, call)


@rule("PReLU")
def learned(flow: Flow, call: Call) -> Value:
    """A slope for each place, or for each channel; zero stays zero."""
    value, slopes = given(flow, call), flow.get(call.argument("alpha"))
    return flow.align([value, slopes], value.shape, lambda flags: flags[0])


@rule("OneHot")
def one_hot(flow: Flow, call: Call) -> Value:
    """A new axis, of which the numbers choose one place each."""
    value, shape = given(flow, call), flow.result_shape(call)
    new = call.op.axis % len(shape)

    def lifted(group: Group) -> Group:
        codes: Any = np.expand_dims(group.codes, new)
        return Group(np.broadcast_to(codes, shape))

    return Value(shape, tuple(map(lifted, value.groups))).never_zero()

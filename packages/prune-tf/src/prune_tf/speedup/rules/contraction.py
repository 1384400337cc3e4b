"""Dense layers and convolutions: channels go in, are added up, and others come out.

    x (2, 4)        axis 1:  1 2 3 4  ┐ tied: 1=5 2=6 3=7 4=8
    kernel (4, 3)   axis 0:  5 6 7 8  ┘
                    axis 1:  9 10 11
    x @ kernel      axis 1:  9 10 11

A convolution is the same for its channels; along space nothing can go.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.values import CONSTANT, UNIFORM, ZERO, Group, Value
from prune_tf.speedup.rules.registry import rule
from prune_tf.speedup.rules.tools import activated, channel_axis, channels, given, line, placed

__all__ = ["blurs_borders"]


@rule("Dense")
def dense(flow: Flow, call: Call) -> Value:
    """`x @ kernel + bias`; what lies along other axes is where it was."""
    value, kernel = given(flow, call), flow.get(call.argument("kernel"))
    lead = ascii_lowercase[: value.ndim - 1]
    made = flow.contract(value, kernel, f"{lead}y,yz->{lead}z")
    return activated(flow, call, _plus_bias(flow, call, made))


@rule("Conv1D", "Conv2D", "Conv3D")
def convolution(flow: Flow, call: Call) -> Value:
    """A convolution, perhaps in groups."""
    value, kernel, axis = _spatial(flow, call, "kernel")
    if call.op.groups > 1:
        return _finished(flow, call, _in_groups(flow, call, value, kernel), axis)
    return _finished(flow, call, flow.contract(value, kernel, "i,io->o"), axis)


@rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed(flow: Flow, call: Call) -> Value:
    """A convolution the other way round; its sums differ from place to place."""
    value, kernel, axis = _spatial(flow, call, "kernel")
    return _finished(flow, call, flow.contract(value, kernel, "i,oi->o"), axis)


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(flow: Flow, call: Call) -> Value:
    """Each input channel makes `depth_multiplier` outputs, which can only go with it."""
    value, kernel, axis = _spatial(flow, call, "kernel")
    return _finished(flow, call, _each_by_itself(flow, call, value, kernel), axis)


@rule("SeparableConv1D", "SeparableConv2D")
def separable(flow: Flow, call: Call) -> Value:
    """A depthwise convolution, then a sum over channels."""
    value, kernel, axis = _spatial(flow, call, "depthwise_kernel")
    each = _each_by_itself(flow, call, value, kernel)
    pointwise = _matrix(flow, call, "pointwise_kernel")
    return _finished(flow, call, flow.contract(each, pointwise, "i,io->o"), axis)


def _spatial(flow: Flow, call: Call, kernel: str) -> tuple[Value, Value, int]:
    """What goes in, a kernel at one place of its window, and the axis of the channels."""
    value, matrix = given(flow, call), _matrix(flow, call, kernel)
    axis = channel_axis(call, value, flow.get(call.argument(kernel)).ndim - 2)
    return channels(flow, call, value, axis), matrix, axis


def _matrix(flow: Flow, call: Call, name: str) -> Value:
    """A kernel at one place of the window that it slides along."""
    kernel = flow.get(call.argument(name))
    space = kernel.ndim - 2
    flow.pin_all(kernel, range(space), "a convolution slides along it")
    last = {space, space + 1}
    groups = (group for group in kernel.groups if last & set(group.axes))
    codes = [group.only(last).codes[(0,) * space] for group in groups]
    return Value(kernel.shape[space:], tuple(map(Group, codes)), constant=True)


def _in_groups(flow: Flow, call: Call, value: Value, kernel: Value) -> Value:
    """Groups go as wholes: all inputs and all outputs of one."""
    count, why = call.op.groups, "a group of a convolution goes as a whole"
    flow.pin(kernel, 0, why)
    outputs = line(kernel, 1)
    entering, leaving = value.group_at(0), outputs.group_at(0)
    if entering is None or leaving is None:
        flow.pin(kernel, 1, why)
        return Value(outputs.shape)
    groups = entering.compact().reshape(count, -1)
    flow.labels.tie(groups, groups[:, :1], why)
    flow.labels.tie(leaving.compact().reshape(count, -1), groups[:, :1], why)
    together = entering.states().reshape(count, -1).max(axis=1)
    if blurs_borders(call.op):
        together = np.where(together == UNIFORM, CONSTANT, together)
    together = together.repeat(kernel.shape[1] // count)
    states = np.where(leaving.states() == ZERO, ZERO, together)
    return Value(outputs.shape, (leaving.with_states(states),))


def _each_by_itself(flow: Flow, call: Call, value: Value, kernel: Value) -> Value:
    """What a depthwise kernel makes of channels: so many outputs of each."""
    count, multiplier = kernel.shape
    flow.pin(kernel, 1, "what a channel is multiplied to goes with it")
    blurs = blurs_borders(call.op)

    def known(states: Sequence[int]) -> int:
        """A constant is one all over unless zeros are put around it."""
        if ZERO in states:
            return ZERO
        return max(states[0], CONSTANT) if blurs else states[0]

    made = flow.align([value, line(kernel, 0)], (count,), any, known=known)
    groups = tuple(Group(np.repeat(group.codes, multiplier)) for group in made.groups)
    return Value((count * multiplier,), groups)


def _finished(flow: Flow, call: Call, made: Value, axis: int) -> Value:
    """Channels with the bias added, after the activation, at all places of the result."""
    made = activated(flow, call, _plus_bias(flow, call, made))
    return placed(made, axis, flow.result_shape(call))


def _plus_bias(flow: Flow, call: Call, value: Value) -> Value:
    bias = call.argument("bias")
    if not isinstance(bias, Ref):
        return value
    return flow.align([value, flow.get(bias)], value.shape, all)


def blurs_borders(layer: Any) -> bool:
    """Whether a constant input gives outputs that differ at the borders."""
    if "Transpose" in type(layer).__name__:
        return True
    kernel = getattr(layer, "kernel_size", ())
    return bool(any(n > 1 for n in kernel) and layer.padding != "valid")

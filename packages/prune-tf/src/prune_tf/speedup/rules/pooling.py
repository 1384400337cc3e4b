"""What works on space and leaves channels where they are."""

from __future__ import annotations

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.rules import Declined
from prune_speedup.engine.values import CONSTANT, Value
from prune_tf.speedup.rules.registry import rule
from prune_tf.speedup.rules.tools import channel_axis, channels, given, placed

__all__: list[str] = []

_DIMENSIONS = ("1D", "2D", "3D")


def _each(*names: str) -> list[str]:
    return [name + dimension for name in names for dimension in _DIMENSIONS]


@rule(
    *_each(
        "MaxPooling",
        "AveragePooling",
        "GlobalMaxPooling",
        "GlobalAveragePooling",
        "Cropping",
        "UpSampling",
        "ZeroPadding",
    )
)
def pooling(flow: Flow, call: Call) -> Value:
    """A constant channel stays what it is, unless zeros are put around it."""
    value, shape = given(flow, call), flow.result_shape(call)
    space = int(call.name[-2])
    axis = channel_axis(call, value, space)
    line = channels(flow, call, value, axis)
    if call.name.startswith("ZeroPadding"):
        line = line.at_least(CONSTANT)
    # Without space, channels are behind all that is left.
    return placed(line, len(shape) - 1 if len(shape) == value.ndim - space else axis, shape)


@rule("Resizing")
def resizing(flow: Flow, call: Call) -> Value:
    """Numbers between those of the same channel; a constant is no more than nearly the same."""
    if call.op.pad_to_aspect_ratio and call.op.fill_value:
        raise Declined("it puts other than zeros beside them")
    value, shape = given(flow, call), flow.result_shape(call)
    axis = channel_axis(call, value, 2)
    return placed(channels(flow, call, value, axis).at_least(CONSTANT), axis, shape)

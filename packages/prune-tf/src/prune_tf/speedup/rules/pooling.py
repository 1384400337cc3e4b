"""What works on space and leaves channels where they are."""

from __future__ import annotations

from dataclasses import replace

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.layout import channel_axis, channels_along
from prune_tf.speedup.rules.registry import rule

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
    )
)
def pooling(analysis: Analysis, call: Call) -> list[Flow] | None:
    """A constant channel stays what it is."""
    flow = channels_along(analysis, call, channel_axis(call.op, len(call.inputs[0].shape)))
    if flow is None:
        return None
    # Without space, or with it as it was: the channels are where they are counted from the front.
    left = len(call.outputs[0].shape)
    return [replace(flow, axis=-1 if left == 2 else channel_axis(call.op, left))]


@rule(*_each("ZeroPadding"))
def padding(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Zeros around a constant that is not 0 make it vary."""
    flow = channels_along(analysis, call, channel_axis(call.op, len(call.inputs[0].shape)))
    if flow is None:
        return None
    constants = flow.constants.copy()
    constants[constants != 0] = float("nan")
    return [Flow(flow.labels, constants, flow.axis)]

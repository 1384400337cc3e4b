"""Where a layer has its channels: behind everything else, or in front of space."""

from __future__ import annotations

from typing import Any

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call

__all__ = ["channel_axis", "channels_along"]


def channel_axis(layer: Any, rank: int) -> int:
    """Return the axis of the channels, counted from the end.

    Args:
        layer: A layer that works on space.
        rank: How many axes its input has.
    """
    return 1 - rank if getattr(layer, "data_format", "") == "channels_first" else -1


def channels_along(analysis: Analysis, call: Call, axis: int) -> Flow | None:
    """Return what is known of the channels that a call is given; what lies elsewhere stays.

    Args:
        analysis: What is known so far.
        call: A call; its first input is meant.
        axis: Where its channels are, counted from the end.

    Returns:
        None where they lie behind everything else, and nothing is known of that.
    """
    source = call.inputs[0]
    flow = analysis.flow(source)
    if axis == -1 and flow.axis != -1:
        return None
    for part in flow.parts:
        if part.axis != axis:
            analysis.labels.fix(part.labels, f"{call.op.name!r} ({call.kind}) works along them")
    return analysis.along(source, axis)

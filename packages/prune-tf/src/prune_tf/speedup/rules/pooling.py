"""What works on space and leaves channels where they are."""

from __future__ import annotations

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
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
    flow = analysis.flow(call.inputs[0])
    if flow.axis != -1 or getattr(call.op, "data_format", "") == "channels_first":
        return None
    return [flow]


@rule(*_each("ZeroPadding"))
def padding(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Zeros around a constant that is not 0 make it vary."""
    flow = analysis.flow(call.inputs[0])
    if flow.axis != -1 or getattr(call.op, "data_format", "") == "channels_first":
        return None
    constants = flow.constants.copy()
    constants[constants != 0] = float("nan")
    return [Flow(flow.labels, constants)]

"""Fewer axes, or the same axes with a share of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow, Use
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []


@rule(
    *("Mean", "Sum", "Max", "Min", "Amax", "Amin", "Var", "Std", "Logsumexp", "Prod", "Median"),
    *("All", "Any", "Argmax", "Argmin", "CountNonzero"),
    wide=True,
)
def reduction(analysis: Analysis, call: Call) -> list[Flow] | None:
    """A sum may lose what is zero; anything else runs over all that there was."""
    rank = len(call.inputs[0].shape)
    over = _axes(call.op.axis, rank)
    parts = []
    for part in analysis.flow(call.inputs[0]).parts:
        if part.axis in over:
            _run_over(analysis, call, part)
            continue
        axis = part.axis
        if not getattr(call.op, "keepdims", False):
            axis += sum(gone > part.axis for gone in over)
        parts.append(replace(part, axis=axis, constants=_reduced(call.kind, part.constants)))
    return [analysis.made(call.outputs[0], parts)]


def _run_over(analysis: Analysis, call: Call, part: Flow) -> None:
    if call.kind != "Sum":
        why = f"{call.op.name!r} ({call.kind}) runs over all of them"
        analysis.labels.fix(part.labels, why)
        return
    matters = part.constants != 0
    still = np.where(matters, np.nan, 0.0)
    analysis.uses.append(Use(call.op, part.labels, still, matters, None, 0, None))


def _reduced(kind: str, constants: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if kind in ("Mean", "Max", "Min", "Amax", "Amin"):
        return constants
    if kind == "Sum":
        return np.where(constants == 0, 0.0, np.nan)
    return np.full(len(constants), np.nan)


@rule("Softmax", "LogSoftmax", wide=True)
def softmax(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Shares of a whole along some axes; along the others each place is by itself."""
    rank = len(call.inputs[0].shape)
    over = _axes(call.op.axis, rank)
    parts = []
    # The layer may be given a mask beside what it takes shares of.
    for tensor in call.inputs[1:]:
        for part in analysis.flow(tensor).parts:
            analysis.labels.fix(part.labels, f"{call.op.name!r} masks with them")
    for part in analysis.flow(call.inputs[0]).parts:
        if part.axis in over:
            analysis.labels.fix(part.labels, f"{call.op.name!r} takes shares of all of them")
        parts.append(replace(part, constants=np.full(len(part.labels), np.nan)))
    for tensor in call.inputs[1:]:
        for part in parts:
            if len(tensor.shape) >= -part.axis and tensor.shape[part.axis] != 1:
                analysis.labels.fix(part.labels, f"{call.op.name!r} is given a mask for them")
    return [analysis.made(call.outputs[0], parts)]


@rule("TopK", "Sort", "Argsort", "Cumsum", "Cumprod", wide=True)
def in_order(analysis: Analysis, call: Call) -> list[Flow] | None:
    """What comes out depends on all places along one axis; along others each is by itself."""
    rank = len(call.inputs[0].shape)
    axis = getattr(call.op, "axis", -1)
    if axis is None:
        return None
    [over] = _axes(axis, rank)
    kept: list[Flow] = []
    for part in analysis.flow(call.inputs[0]).parts:
        if part.axis == over:
            analysis.labels.fix(part.labels, f"{call.op.name!r} ({call.kind}) orders all of them")
        else:
            kept.append(part)
    return [
        analysis.made(output, [replace(p, constants=_ordered(call, at, p.constants)) for p in kept])
        for at, output in enumerate(call.outputs)
    ]


def _ordered(call: Call, output: int, constants: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """In order, what is the same everywhere is itself; added up or multiplied, only zero is."""
    if call.kind == "Sort" or (call.kind == "TopK" and output == 0):
        return constants
    zero = call.kind in ("Cumsum", "Cumprod")
    return np.where((constants == 0) & zero, 0.0, np.nan)


def _axes(axis: Any, rank: int) -> set[int]:
    if axis is None:
        return set(range(-rank, 0))
    axes = axis if isinstance(axis, list | tuple) else (axis,)
    return {each % rank - rank for each in axes}

"""Sending labels through a model, rule by rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from prune_tf.layers import slots_of
from prune_tf.speedup.analysis import Analysis
from prune_tf.speedup.graph import Call, calls_of, is_graph
from prune_tf.speedup.reference import Values, reader
from prune_tf.speedup.rules import rule_for

__all__ = ["analyse"]


def analyse(model: keras.Model, masks: Values, silence: bool = False) -> Analysis:
    """Return what is known of the channels of a model.

    Args:
        model: The model.
        masks: Applied to its weights.
        silence: Whether to add masks for batch norms where nothing but a constant comes in.
    """
    analysis = Analysis(reader(masks), _silencer(masks) if silence else None)
    _follow(analysis, model, set())
    return analysis


def _silencer(masks: Values) -> Callable[[Any, np.ndarray[Any, Any]], None]:
    def silence(layer: Any, constant: np.ndarray[Any, Any]) -> None:
        for name in slots_of(layer):
            masks[id(layer), name] = masks.get((id(layer), name), True) & ~constant

    return silence


def _follow(analysis: Analysis, model: keras.Model, followed: set[int]) -> None:
    calls = calls_of(model)
    analysis.calls.update(id(call.op) for call in calls)
    for call in calls:
        flows = None
        if is_graph(call.op):
            # Its own calls are followed with its inputs and outputs as they are, so that it fits
            # wherever it is called.
            if id(call.op) not in followed:
                followed.add(id(call.op))
                _follow(analysis, call.op, followed)
        elif _is_plain(call.op):
            flows = _by_rule(analysis, call)
        if flows is None:
            flows = _unknown(analysis, call)
        analysis.flows.update(zip(map(id, call.outputs), flows, strict=True))
    returned = f"{model.name!r} returns them"
    for output in model.outputs:
        analysis.labels.fix(analysis.flow(output).labels, returned)


def _by_rule(analysis: Analysis, call: Call) -> Any:
    rule = rule_for(call.op)
    return None if rule is None else rule(analysis, call)


def _unknown(analysis: Analysis, call: Call) -> Any:
    """Leave alone what goes in and what comes out."""
    if is_graph(call.op):
        why = f"{call.op.name!r}, a model inside of this one, takes or returns them"
    else:
        analysis.unknown[call.op.name] = call.kind
        why = f"{call.op.name!r} ({call.kind}) {_lack(call)}"
    for flow in analysis.inputs(call):
        analysis.labels.fix(flow.labels, why)
    # What a rule may have said before it gave up must not let anything go either.
    for labels in analysis.axes.get(id(call.op), {}).values():
        analysis.labels.fix(labels, why)
    return [analysis.opaque(output, why) for output in call.outputs]


def _lack(call: Call) -> str:
    """Why no rule speaks for a call."""
    if rule_for(call.op) is None:
        return "has no rule"
    if not _is_plain(call.op):
        return "is quantized or has LoRA"
    return "is called in a way that its rule does not know"


def _is_plain(op: Any) -> bool:
    """Whether a layer computes with nothing more than its kernel and bias."""
    return not any(
        getattr(op, attribute, None) for attribute in ("lora_enabled", "quantization_mode")
    )

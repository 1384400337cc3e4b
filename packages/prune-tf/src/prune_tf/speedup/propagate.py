"""Sending labels through a model, rule by rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from prune_tf.layers import layers_of, slots_of
from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.record import Given, Passed, Recording, record
from prune_tf.speedup.reference import Values, reader
from prune_tf.speedup.rules import is_wide, rule_for
from prune_tf.speedup.rules.layout import channel_axis

__all__ = ["analyse"]


def analyse(
    model: keras.Model,
    masks: Values,
    silence: bool = False,
    example_inputs: Any = None,
    repairs: bool = True,
) -> Analysis:
    """Return what is known of the channels of a model.

    Args:
        model: The model.
        masks: Applied to its weights.
        silence: Whether to add masks for batch norms where nothing but a constant comes in.
        example_inputs: What a subclassed model is called with.
        repairs: Whether sizes that a layer's own Python reads may be edited.

    Raises:
        SpeedupError: When a subclassed model cannot be followed.
    """
    found = record(model, lambda op: rule_for(op) is not None, example_inputs)
    analysis = Analysis(reader(masks), _silencer(masks) if silence else None)
    analysis.entered, analysis.inner = found.entered, found.inner
    analysis.repairs = repairs
    analysis.owners = _owners(model)
    analysis.calls.update(id(call.op) for call in found.calls)
    analysis.followed = found.calls
    for call in found.calls:
        _follow(analysis, call, found)
    for given, first in found.again:
        _alike(analysis, given, first)
    for output in found.outputs:
        for part in analysis.flow(output).parts:
            analysis.labels.fix(part.labels, f"{model.name!r} returns them")
    return analysis


def _silencer(masks: Values) -> Callable[[Any, np.ndarray[Any, Any]], None]:
    def silence(layer: Any, constant: np.ndarray[Any, Any]) -> None:
        for name in slots_of(layer):
            masks[id(layer), name] = masks.get((id(layer), name), True) & ~constant

    return silence


def _owners(model: keras.Model) -> dict[int, tuple[Any, str, str]]:
    """Return where each variable is, if its layer has no other of that name."""
    owners = {}
    for layer in [model, *(named.layer for named in layers_of(model))]:
        attributes = {id(getattr(layer, name)): name for name in slots_of(layer)}
        own = [*layer._trainable_variables, *layer._non_trainable_variables]
        names = Counter(variable.name for variable in own)
        for variable in own:
            if names[variable.name] == 1:
                attribute = attributes.get(id(variable), variable.name)
                owners[id(variable)] = (layer, attribute, variable.name)
    return owners


def _follow(analysis: Analysis, call: Call, found: Recording) -> None:
    flows = None
    if isinstance(call.op, Passed):
        [source] = call.inputs
        flows = [analysis.flow(source)]
    elif isinstance(call.op, Given):
        [made] = call.outputs
        flows = [analysis.opaque(made, "a layer returns them whatever it is given")]
    elif _is_plain(call.op):
        flows = _by_rule(analysis, call)
    if flows is None:
        flows = _unknown(analysis, call, found)
    analysis.flows.update(zip(map(id, call.outputs), flows, strict=True))


def _by_rule(analysis: Analysis, call: Call) -> Any:
    rule = rule_for(call.op)
    if rule is None:
        return None
    if not is_wide(call.op):
        for tensor in call.inputs:
            _narrow(analysis, call, tensor)
    return rule(analysis, call)


def _narrow(analysis: Analysis, call: Call, tensor: Any) -> None:
    """Leave a rule that knows of one axis only the last one, or else the first that is known."""
    flow = analysis.flow(tensor)
    if not flow.more:
        return
    kept = flow.at(channel_axis(call.op, len(tensor.shape))) or flow.at(-1) or flow.parts[0]
    for part in flow.parts:
        if part.axis != kept.axis:
            why = f"the rule for {call.op.name!r} ({call.kind}) cuts one axis only"
            analysis.labels.fix(part.labels, why)
    analysis.flows[id(tensor)] = kept


def _alike(analysis: Analysis, given: Any, first: Any) -> None:
    """A layer that is entered at several places takes the same channels at each."""
    known = {part.axis: part for part in analysis.flow(first).parts}
    for part in analysis.flow(given).parts:
        other = known.pop(part.axis, None)
        if other is None or len(other.labels) != len(part.labels):
            analysis.labels.fix(part.labels, "the layer that takes them is called elsewhere, too")
        else:
            analysis.labels.tie(part.labels, other.labels)
    for part in known.values():
        analysis.labels.fix(part.labels, "the layer that takes them is called elsewhere, too")


def _unknown(analysis: Analysis, call: Call, found: Recording) -> list[Flow]:
    """Leave alone what goes in and what comes out."""
    told = call.holder if call.holder is not None else call.op
    why = f"{call.op.name!r} ({call.kind}) {_lack(call, found)}"
    if call.holder is not None:
        why = f"inside of {told.name!r} ({type(told).__name__}), {why}"
    analysis.why_unknown[id(call.op)] = why
    flows = [analysis.flow(tensor) for tensor in call.inputs]
    if any(_is_free(analysis, part) for flow in flows for part in flow.parts) or not call.holder:
        analysis.unknown[told.name] = type(told).__name__
    for flow in flows:
        for part in flow.parts:
            analysis.labels.fix(part.labels, why)
    # What a rule may have said before it gave up must not let anything go either.
    for labels in analysis.axes.get(id(call.op), {}).values():
        analysis.labels.fix(labels, why)
    return [analysis.opaque(output, why) for output in call.outputs]


def _is_free(analysis: Analysis, part: Flow) -> bool:
    return not analysis.labels.is_fixed(part.labels).all()


def _lack(call: Call, found: Recording) -> str:
    """Why no rule speaks for a call."""
    if rule_for(call.op) is None:
        problem = found.problems.get(id(call.op))
        if problem and type(call.op).__module__.partition(".")[0] != "keras":
            return f"has no rule, and its call() cannot be followed ({problem})"
        return "has no rule"
    if not _is_plain(call.op):
        return "is quantized or has LoRA"
    return "is called in a way that its rule does not know"


def _is_plain(op: Any) -> bool:
    """Whether a layer computes with nothing more than its kernel and bias."""
    return not any(
        getattr(op, attribute, None) for attribute in ("lora_enabled", "quantization_mode")
    )

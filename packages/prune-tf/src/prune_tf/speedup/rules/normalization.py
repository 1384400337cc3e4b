"""Normalization with statistics that are fixed at inference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.layout import channels_along
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []


@rule("BatchNormalization")
def batch_normalization(analysis: Analysis, call: Call) -> list[Flow] | None:
    """`γ · (x − mean) / √(variance + ε) + β`, channel by channel."""
    layer, rank = call.op, len(call.inputs[0].shape)
    flow = channels_along(analysis, call, layer.axis % rank - rank)
    if flow is None:
        return None
    if analysis.silence is not None and not analysis.is_shared(layer):
        analysis.silence(layer, ~np.isnan(flow.constants))
    count = len(flow.labels)
    mean, variance = (
        analysis.weights(layer, name).astype(np.float64)
        for name in ("moving_mean", "moving_variance")
    )
    gamma = analysis.weights(layer, "gamma") if layer.scale else np.ones(count)
    beta = analysis.weights(layer, "beta") if layer.center else np.zeros(count)
    names = ["moving_mean", "moving_variance"]
    names += ["gamma"] * layer.scale + ["beta"] * layer.center
    for name in names:
        analysis.lies(layer, name, 0, flow.labels)
    constants = gamma * (flow.constants - mean) / np.sqrt(variance + layer.epsilon) + beta
    # What is multiplied by 0 is the offset alone.
    return [Flow(flow.labels, np.where(gamma == 0, beta, constants), flow.axis)]


@rule("LayerNormalization", "RMSNormalization", "UnitNormalization", wide=True)
def over_channels(analysis: Analysis, call: Call) -> list[Flow] | None:
    """What is normalized over stays: a mean over fewer channels would be another one."""
    rank = len(call.inputs[0].shape)
    axis = call.op.axis
    over = {a % rank - rank for a in (axis if isinstance(axis, list | tuple) else (axis,))}
    parts = []
    for part in analysis.flow(call.inputs[0]).parts:
        if part.axis in over:
            why = f"{call.op.name!r} ({call.kind}) takes a mean over them"
            analysis.labels.fix(part.labels, why)
        parts.append(replace(part, constants=np.full(len(part.labels), np.nan)))
    return [analysis.made(call.outputs[0], parts)]


@rule("GroupNormalization")
def in_groups(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Groups go as wholes, since a mean runs over all channels of one."""
    layer, flow = call.op, analysis.flow(call.inputs[0])
    count = len(flow.labels)
    if flow.axis != -1 or layer.axis not in (-1, len(call.inputs[0].shape) - 1):
        return None
    if count % layer.groups:
        return None
    size = count // layer.groups
    groups = flow.labels[::size]
    analysis.labels.tie(np.repeat(groups, size), flow.labels)
    gamma = analysis.weights(layer, "gamma") if layer.scale else np.ones(count)
    beta = analysis.weights(layer, "beta") if layer.center else np.zeros(count)
    for name in ["gamma"] * layer.scale + ["beta"] * layer.center:
        analysis.lies(layer, name, 0, flow.labels)
    analysis.sizes[id(layer)]["groups"] = groups
    # What is constant in all channels of a group has a known mean and a known variance.
    grouped = flow.constants.reshape(layer.groups, size)
    mean, variance = grouped.mean(axis=1, keepdims=True), grouped.var(axis=1, keepdims=True)
    scaled = ((grouped - mean) / np.sqrt(variance + layer.epsilon)).ravel()
    return [Flow(flow.labels, np.where(gamma == 0, beta, gamma * scaled + beta))]

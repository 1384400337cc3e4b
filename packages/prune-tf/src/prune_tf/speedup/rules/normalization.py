"""Normalization with statistics that are fixed at inference."""

from __future__ import annotations

import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []


@rule("BatchNormalization")
def batch_normalization(analysis: Analysis, call: Call) -> list[Flow] | None:
    """`γ · (x − mean) / √(variance + ε) + β`, channel by channel."""
    layer, flow = call.op, analysis.flow(call.inputs[0])
    if flow.axis != -1 or layer.axis not in (-1, len(call.inputs[0].shape) - 1):
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
    return [Flow(flow.labels, np.where(gamma == 0, beta, constants))]

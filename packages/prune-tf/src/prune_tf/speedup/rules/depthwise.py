"""Convolutions in which each channel stays by itself, and those followed by a sum over them."""

from __future__ import annotations

from typing import Any

import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.activations import activated, is_elementwise
from prune_tf.speedup.rules.contraction import adds_up, blurs_borders, bringing_out, use
from prune_tf.speedup.rules.layout import channel_axis, channels_along
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []

Array = np.ndarray[Any, Any]


@rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Each input channel makes `depth_multiplier` outputs, which can only go with it."""
    layer = call.op
    axis = channel_axis(layer, len(call.inputs[0].shape))
    flow = channels_along(analysis, call, axis)
    if flow is None:
        return None
    kernel = analysis.weights(layer, "kernel")
    labels = np.repeat(flow.labels, kernel.shape[-1])
    analysis.lies(layer, "kernel", kernel.ndim - 2, flow.labels)
    analysis.lies(layer, "", 0, labels)
    constants = _each(kernel, flow.constants, not blurs_borders(layer))
    if layer.use_bias:
        analysis.lies(layer, "bias", 0, labels)
        constants = constants + analysis.weights(layer, "bias")
    if not is_elementwise(layer.activation):
        return None
    return [Flow(labels, activated(layer.activation, constants), axis)]


@rule("SeparableConv1D", "SeparableConv2D")
def separable(analysis: Analysis, call: Call) -> list[Flow] | None:
    """A depthwise convolution, then a sum over channels."""
    layer = call.op
    axis = channel_axis(layer, len(call.inputs[0].shape))
    flow = channels_along(analysis, call, axis)
    if flow is None:
        return None
    first = analysis.weights(layer, "depthwise_kernel")
    second = analysis.weights(layer, "pointwise_kernel")
    multiplier, everywhere = first.shape[-1], not blurs_borders(layer)
    rows = second.reshape(-1, second.shape[-1]).astype(np.float64)
    each = first.sum(axis=tuple(range(first.ndim - 2)), dtype=np.float64)
    alive = (first != 0).any(axis=tuple(range(first.ndim - 2)))
    split = (len(flow.labels), multiplier, -1)
    sums = (rows.reshape(split) * each[:, :, None]).sum(axis=1)
    linked = ((rows.reshape(split) != 0) & alive[:, :, None]).any(axis=1)
    analysis.lies(layer, "depthwise_kernel", first.ndim - 2, flow.labels)
    inner = np.repeat(flow.labels, multiplier)
    analysis.lies(layer, "pointwise_kernel", second.ndim - 2, inner)
    use(analysis, call, flow, linked.any(axis=1), None, 0, sums if everywhere else None)
    known = adds_up(flow.constants, linked, sums, everywhere)
    given = {"pointwise_kernel": second.ndim - 1}
    return bringing_out(analysis, layer, "filters", given, known, axis)


def _each(kernel: Array, constants: Array, everywhere: bool) -> Array:
    """Return the constants of the outputs, before the bias."""
    space = tuple(range(kernel.ndim - 2))
    sums = kernel.sum(axis=space, dtype=np.float64)
    still = constants if everywhere else np.where(constants == 0, 0.0, np.nan)
    results = still[:, None] * sums
    # Zero weights make zeros of anything.
    results[~(kernel != 0).any(axis=space)] = 0.0
    return np.asarray(results.ravel())

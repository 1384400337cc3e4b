"""Dense layers and convolutions: channels go in, are added up, and others come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow, Use
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.activations import activated, is_elementwise
from prune_tf.speedup.rules.layout import channel_axis, channels_along
from prune_tf.speedup.rules.registry import rule

__all__ = ["adds_up", "blurs_borders", "bringing_out", "use"]

Array = np.ndarray[Any, Any]


@rule("Dense", wide=True)
def dense(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Follow `x @ kernel + bias`; what lies along other axes is where it was."""
    [source] = call.inputs
    made = _contract(analysis, call, "units", taken=0, given=1)
    if made is None:
        return None
    others = [
        Flow(part.labels, np.full(len(part.labels), np.nan), part.axis)
        for part in analysis.flow(source).parts
        if part.axis != -1
    ]
    return [analysis.made(call.outputs[0], [*made[0].parts, *others])]


@rule("Conv1D", "Conv2D", "Conv3D")
def convolution(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Follow a convolution over the last axis."""
    if call.op.groups != 1:
        return _grouped(analysis, call)
    return _contract(analysis, call, "filters", taken=-2, given=-1)


@rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Follow a transposed convolution; its sums differ from place to place."""
    return _contract(analysis, call, "filters", taken=-1, given=-2)


def _contract(
    analysis: Analysis, call: Call, size: str, taken: int, given: int
) -> list[Flow] | None:
    layer, [source] = call.op, call.inputs
    axis = channel_axis(layer, len(source.shape))
    # Whatever else a dense layer is given stays where it is.
    flow = analysis.along(source, -1) if size == "units" else channels_along(analysis, call, axis)
    if flow is None:
        return None
    kernel = analysis.weights(layer, "kernel")
    taken, given = taken % kernel.ndim, given % kernel.ndim
    # What one input channel, the same everywhere, adds to each output channel.
    over = tuple(axis for axis in range(kernel.ndim) if axis not in (taken, given))
    sums = kernel.sum(axis=over, dtype=np.float64)
    sums = sums if taken < given else sums.T
    linked = np.any(kernel != 0, axis=over)
    linked = linked if taken < given else linked.T
    everywhere = not blurs_borders(layer)
    analysis.lies(layer, "kernel", taken, flow.labels)
    use(analysis, call, flow, linked.any(axis=1), "kernel", taken, sums if everywhere else None)
    known = adds_up(flow.constants, linked, sums, everywhere)
    return bringing_out(analysis, layer, size, {"kernel": given}, known, axis)


def _grouped(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Follow a convolution in groups, which can only go as wholes: inputs and outputs of one."""
    layer = call.op
    axis = channel_axis(layer, len(call.inputs[0].shape))
    flow = channels_along(analysis, call, axis)
    if flow is None:
        return None
    kernel = analysis.weights(layer, "kernel")
    inputs, outputs = kernel.shape[-2], kernel.shape[-1] // layer.groups
    groups = flow.labels[::inputs]
    analysis.labels.tie(np.repeat(groups, inputs), flow.labels)
    labels = np.repeat(groups, outputs)
    analysis.lies(layer, "kernel", kernel.ndim - 1, labels)
    analysis.lies(layer, "", 0, labels)
    analysis.sizes[id(layer)] |= {"groups": groups, "filters": labels}
    over = tuple(range(kernel.ndim - 2))
    sums, linked = kernel.sum(axis=over, dtype=np.float64), np.any(kernel != 0, axis=over)
    parts = [slice(g * outputs, (g + 1) * outputs) for g in range(layer.groups)]
    entering = flow.constants.reshape(layer.groups, inputs)
    everywhere = not blurs_borders(layer)
    constants = np.concatenate(
        [
            adds_up(each, linked[:, part], sums[:, part], everywhere)
            for each, part in zip(entering, parts, strict=True)
        ]
    )
    if layer.use_bias:
        analysis.lies(layer, "bias", 0, labels)
        constants = constants + analysis.weights(layer, "bias")
    if not is_elementwise(layer.activation):
        return None
    return [Flow(labels, activated(layer.activation, constants), axis)]


def use(
    analysis: Analysis,
    call: Call,
    flow: Flow,
    matters: Array,
    variable: str | None,
    axis: int,
    sums: Array | None,
) -> None:
    """Note that channels are added up here; `sums` has what each adds to every output."""
    layer = call.op
    # A layer that is called twice has one bias, which cannot make up for two constants.
    foldable = sums is not None and not analysis.is_shared(layer)
    # A layer inside of another gets no bias that its holder's Python does not make.
    foldable = foldable and (call.holder is None or bool(getattr(layer, "use_bias", True)))
    merges = variable if not analysis.is_shared(layer) else None
    bias = _folding(sums) if foldable and sums is not None else None
    analysis.uses.append(Use(layer, flow.labels, flow.constants, matters, merges, axis, bias))


def _folding(sums: Array) -> Callable[[Mapping[int, float]], Array]:
    def fold(constants: Mapping[int, float]) -> Array:
        total: Array = sum((value * sums[place] for place, value in constants.items()), 0 * sums[0])
        return total

    return fold


def adds_up(constants: Array, linked: Array, sums: Array, everywhere: bool) -> Array:
    """Return the sum for each output channel to which nothing but constants contributes.

    Args:
        constants: The values of the inputs, NaN where they vary.
        linked: Whether any weight between an input and an output is not zero.
        sums: What an input of 1 adds to an output.
        everywhere: Whether it adds that at the borders too.
    """
    varying = np.isnan(constants) if everywhere else constants != 0  # NaN != 0 is true
    known = np.where(varying, 0.0, constants) @ sums
    return np.where((linked & varying[:, None]).any(axis=0), np.nan, known)


def bringing_out(
    analysis: Analysis,
    layer: Any,
    size: str,
    weights: Mapping[str, int],
    sums: Array,
    axis: int = -1,
) -> list[Flow]:
    """Return the output channels of a layer, given what is added up before bias and activation."""
    labels = analysis.own(layer, len(sums))
    for variable, along in weights.items():
        analysis.lies(layer, variable, along, labels)
    analysis.sizes[id(layer)][size] = labels
    if layer.use_bias:
        analysis.lies(layer, "bias", 0, labels)
        sums = sums + analysis.weights(layer, "bias")
    if not is_elementwise(layer.activation):
        analysis.labels.fix(
            labels,
            f"the activation of {layer.name!r} may mix channels, as softmax does, or is not "
            "written with keras.ops",
        )
        return [Flow(labels, np.full(len(labels), np.nan), axis)]
    return [Flow(labels, activated(layer.activation, sums), axis)]


def blurs_borders(layer: Any) -> bool:
    """Whether a constant input gives outputs that differ at the borders."""
    if "Transpose" in type(layer).__name__:
        return True
    kernel = getattr(layer, "kernel_size", ())
    return bool(any(n > 1 for n in kernel) and layer.padding != "valid")

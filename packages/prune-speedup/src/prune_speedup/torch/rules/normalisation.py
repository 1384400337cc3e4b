"""Normalisations: they tie their parameters to an axis and may run over removable indices.

A layer norm over a shorter axis is a norm over the live channels. That is what a pruned norm is
taken to mean everywhere in this package, and the calls concerned are listed in
`Flow.live_norms`, so that a proof can be made against the same meaning.
"""

from collections.abc import Sequence
from math import prod

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.values import Group, Value
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []


@rule("aten.native_layer_norm", "aten._fused_rms_norm")
def layer_norm(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A norm over the last axes."""
    value = flow.get(call.args[0])
    count = len(call.args[1])
    over = range(value.ndim - count, value.ndim)
    normalise_over(flow, value, set(over))
    scale = [flow.get(a) for a in call.args[2:4] if hasattr(a, "index")]
    complete = call.name != "native_layer_norm" or hasattr(call.args[2], "index")
    # Centring makes a constant of a zero, so that only zero parameters leave a zero behind.
    made = _affine(flow, value, scale, centred=call.name == "native_layer_norm", complete=complete)
    rest = [None if index is None else Value(flow.metas[index].shape) for index in call.outputs[1:]]
    return [made, *rest]


@rule("aten.native_batch_norm", "aten._native_batch_norm_legit", "aten.cudnn_batch_norm")
@rule("aten._native_batch_norm_legit_no_training", "aten.miopen_batch_norm")
@rule("aten._batch_norm_with_update", "aten.batch_norm_with_update")
@rule("aten._native_batch_norm_legit_functional", "aten._batch_norm_no_update")
def batch_norm(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A norm of each channel with the statistics of the others or its own."""
    value = flow.get(call.args[0])
    others = set(range(value.ndim)) - {1}
    if _uses_own_statistics(call):
        normalise_over(flow, value, others)
    parameters = [flow.get(a) for a in call.args[1:5] if hasattr(a, "index")]
    lifted = [_at_channels(each, value.ndim) for each in parameters]
    scaled = hasattr(call.args[1], "index")
    affine = sum(hasattr(a, "index") for a in call.args[1:3])

    def zero(flags: Sequence[bool]) -> bool:
        return scaled and all(flags[1 : 1 + affine])

    made = flow.align([value, *lifted], value.shape, zero)
    rest = [None if index is None else Value(flow.metas[index].shape) for index in call.outputs[1:]]
    return [made, *rest]


@rule("aten.native_group_norm")
def group_norm(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A norm of groups of channels: a group goes as a whole, the only one is a layer norm."""
    value, count = flow.get(call.args[0]), int(call.args[6])
    flow.pin_all(value, [0, *range(2, value.ndim)], "a group norm runs over it")
    channels = value.group_at(1)
    if count == 1:
        normalise_over(flow, value, {1})
    elif channels is not None:
        labels = channels.compact()
        folded = labels.reshape(count, -1)
        flow.labels.tie(folded, folded[:, :1], "a group of a group norm goes as a whole")
    scale = [_at_channels(flow.get(a), value.ndim) for a in call.args[1:3] if hasattr(a, "index")]
    made = _affine(flow, value, scale, centred=True, complete=hasattr(call.args[1], "index"))
    rest = [None if index is None else Value(flow.metas[index].shape) for index in call.outputs[1:]]
    return [made, *rest]


@rule("aten._weight_norm_interface")
def weight_norm(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A direction of length one times a length: zeros add nothing to the length."""
    direction, length = flow.get(call.args[0]), flow.get(call.args[1])
    axis = (call.args[2] if len(call.args) > 2 else 0) % direction.ndim
    others = [at for at in range(direction.ndim) if at != axis]
    for group in direction.groups:
        # A direction of length zero has no direction: it is only ever taken over live slices.
        flow.live_norms.append((flow.position, group.compact().ravel()))
    flow.reduce(direction, others, keep=True, kind="sum", why="a weight norm runs")
    made = flow.align([direction, length], direction.shape, lambda flags: flags[0])
    return [made, *[Value(flow.result_shape(call, at)) for at in range(1, len(call.outputs))]]


def normalise_over(flow: Flow, value: Value, over: set[int]) -> None:
    """Statistics over some axes: live ones only, unless a group is cut in two."""
    for group in value.groups:
        inside, outside = over & set(group.axes), set(group.axes) - over
        if inside and outside:
            for axis in inside:
                flow.pin_labels(group.compact(), axis, "a norm runs over a part of it")
        elif inside:
            flow.live_norms.append((flow.position, group.compact().ravel()))


def _affine(
    flow: Flow, value: Value, scale: Sequence[Value], *, centred: bool, complete: bool
) -> Value:
    def zero(flags: Sequence[bool]) -> bool:
        return (complete and all(flags[1:])) or (not centred and flags[0])

    return flow.align([value, *scale], value.shape, zero)


def _at_channels(parameter: Value, ndim: int) -> Value:
    """A parameter with one number per channel, as a value of `ndim` axes."""
    size = prod(parameter.shape)
    shape = (1, size, *[1] * (ndim - 2))
    groups = tuple(Group(group.codes.reshape(shape)) for group in parameter.groups)
    return Value(shape, groups, frozenset({1}) if 0 in parameter.free else frozenset())


def _uses_own_statistics(call: Call) -> bool:
    if "no_training" in call.name or "no_update" in call.name:
        return False
    flags = [argument for argument in call.args[3:] if isinstance(argument, bool)]
    return bool(flags and flags[0])

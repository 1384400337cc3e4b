"""Normalisations: they tie their parameters to an axis and may run over removable indices.

A layer norm over a shorter axis is a norm over the live channels. That is what a pruned norm is
taken to mean everywhere in this package, and the calls concerned are listed in
`Flow.live_norms`, so that a proof can be made against the same meaning.

    h (8, 4)             axis 1:  1 2 3 4
    weight, bias (4,)    axis 0:  tied to it
    layer_norm(h)        axis 1:  1 2 3 4; with 2 gone, the mean of 1, 3 and 4

    group_norm(h, 2)     1=2 and 3=4: a group goes as a whole
"""

from collections.abc import Callable, Sequence
from math import prod

from prune_speedup.engine.alignment import result_of
from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.values import CONSTANT, UNKNOWN, Group, Value
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []


@rule("aten.native_layer_norm", "aten._fused_rms_norm")
def layer_norm(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A norm over the last axes."""
    value = flow.get(call.args[0])
    count = len(call.argument("normalized_shape"))
    over = set(range(value.ndim - count, value.ndim))
    normalise_over(flow, value, over)
    centred = call.name == "native_layer_norm"

    def normalised(group: Group) -> Group:
        """What is normalised with others depends on them; less their mean, zeros do as well."""
        if not over & set(group.axes):
            return group.at_least(CONSTANT)
        return group.with_states(UNKNOWN) if centred else group.at_least(UNKNOWN)

    normal = value.with_groups(map(normalised, value.groups))
    return [_scaled(flow, call, normal, lambda parameter: parameter), *_statistics(flow, call)]


@rule("aten.native_batch_norm", "aten._native_batch_norm_legit", "aten.cudnn_batch_norm")
@rule("aten._native_batch_norm_legit_no_training", "aten.miopen_batch_norm")
@rule("aten._batch_norm_with_update", "aten.batch_norm_with_update")
@rule("aten._native_batch_norm_legit_functional", "aten._batch_norm_no_update")
def batch_norm(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A norm of each channel with the statistics of the others or its own."""
    value = flow.get(call.args[0])

    def lifted(parameter: Value) -> Value:
        return _at_channels(parameter, value.ndim)

    statistics = _given(flow, call, "running_mean", "running_var")
    scale, shift = _given(flow, call, "weight"), _given(flow, call, "bias")
    own = _uses_own_statistics(call)
    if own:
        normalise_over(flow, value, set(range(value.ndim)) - {1})

    def zero(flags: Sequence[bool]) -> bool:
        """A channel of zeros is its own mean; of another mean it is not known that it is zero."""
        return flags[0] and (own or flags[1])

    def known(states: Sequence[int]) -> int:
        """As one after the other would: what is normalised, times the scale, plus the shift."""
        count = 1 + len(statistics)
        made = result_of(states[:count], zero)
        if scale:
            made = result_of([made, states[count]], any)
        return result_of([made, states[-1]], all) if shift else made

    operands = [value, *map(lifted, [*statistics, *scale, *shift])]
    made = flow.align(operands, value.shape, zero, known=known)
    return [made, *_statistics(flow, call)]


def _given(flow: Flow, call: Call, *names: str) -> list[Value]:
    """Those of some arguments that are tensors."""
    every = [call.argument(name) for name in names]
    return [flow.get(each) for each in every if isinstance(each, Ref)]


@rule("aten.native_group_norm")
def group_norm(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A norm of groups of channels: a group goes as a whole, the only one is a layer norm."""
    value, count = flow.get(call.args[0]), int(call.argument("group"))
    flow.pin_all(value, [0, *range(2, value.ndim)], "a group norm runs over it")
    channels = value.group_at(1)
    if count == 1:
        normalise_over(flow, value, {1})
    elif channels is not None:
        labels = channels.compact()
        folded = labels.reshape(count, -1)
        flow.labels.tie(folded, folded[:, :1], "a group of a group norm goes as a whole")
    groups = tuple(
        _as_a_group(group, count) if 1 in group.axes else group.at_least(UNKNOWN)
        for group in value.groups
    )
    normal = value.with_groups(groups)
    made = _scaled(flow, call, normal, lambda parameter: _at_channels(parameter, value.ndim))
    return [made, *_statistics(flow, call)]


def _as_a_group(channels: Group, count: int) -> Group:
    """Channels that are normalised together: what is known of each is what is known of all.

    With [0, 0, 3, 0] in two groups the first two stay zeros; the last one is a number less a mean.
    """
    states = channels.states()
    together = states.reshape(count, -1).max(axis=1)
    made = channels.with_states(together.repeat(states.size // count).reshape(states.shape))
    return made if states.size == count else made.at_least(CONSTANT)


@rule("aten._weight_norm_interface")
def weight_norm(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A direction of length one times a length: zeros add nothing to the length."""
    direction, length = flow.get(call.args[0]), flow.get(call.args[1])
    axis = call.argument("dim") % direction.ndim
    others = [at for at in range(direction.ndim) if at != axis]
    for group in direction.groups:
        # A direction of length zero has no direction: it is only ever taken over live slices.
        flow.live_norms.append((flow.position, group.compact().ravel()))
    flow.reduce(direction, others, keep=True, kind="sum", why="a weight norm runs")
    made = flow.align([direction, length], direction.shape, any)
    return [made, *_statistics(flow, call)]


def normalise_over(flow: Flow, value: Value, over: set[int]) -> None:
    """Statistics over some axes: live ones only, unless a group is cut in two."""
    for group in value.groups:
        inside, outside = over & set(group.axes), set(group.axes) - over
        if inside and outside:
            for axis in inside:
                flow.pin_labels(group.compact(), axis, "a norm runs over a part of it")
        elif inside:
            flow.live_norms.append((flow.position, group.compact().ravel()))


def _scaled(flow: Flow, call: Call, normal: Value, lifted: Callable[[Value], Value]) -> Value:
    """What was normalised, times the weight, plus the bias, of those that the norm has."""
    made = normal
    for name, zero in (("weight", any), ("bias", all)):
        if isinstance(parameter := call.argument(name), Ref):
            made = flow.align([made, lifted(flow.get(parameter))], made.shape, zero)
    return made


def _statistics(flow: Flow, call: Call) -> list[Value | None]:
    """What a norm returns besides."""
    return [None if index is None else Value(flow.metas[index].shape) for index in call.outputs[1:]]


def _at_channels(parameter: Value, ndim: int) -> Value:
    """A parameter with one number per channel, as a value of `ndim` axes."""
    size = prod(parameter.shape)
    shape = (1, size, *[1] * (ndim - 2))
    groups = [
        group.at(1, shape) if len(group.axes) == 1 else Group(group.codes.reshape(shape))
        for group in parameter.groups
    ]
    return Value(shape, tuple(groups), frozenset({1}) if 0 in parameter.free else frozenset())


def _uses_own_statistics(call: Call) -> bool:
    if "no_training" in call.name or "no_update" in call.name:
        return False
    return "with_update" in call.name or bool(call.argument("training"))

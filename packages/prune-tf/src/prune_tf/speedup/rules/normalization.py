"""Normalization: by statistics that are fixed at inference, or by those of what comes in.

h (2, 8, 8, 4)   axis 3:  1 2 3 4
batch norm       axis 3:  1 2 3 4, tied to its four vectors
layer norm       axis 3:  fixed; a mean over fewer channels would be another one
group norm       axis 3:  1=2 and 3=4; a group goes as a whole
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prune_speedup.engine.alignment import result_of
from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.rules import Declined
from prune_speedup.engine.values import CONSTANT, UNIFORM, UNKNOWN, ZERO, Group, Value
from prune_tf.speedup.rules.registry import Rules, rule
from prune_tf.speedup.rules.tools import given, lifted

__all__: list[str] = []


@rule("BatchNormalization")
def batch_normalization(flow: Flow, call: Call) -> Value:
    """`γ · (x − mean) / √(variance + ε) + β`, channel by channel."""
    value = given(flow, call)
    axis = call.op.axis % value.ndim
    names = ("moving_mean", "moving_variance", "gamma", "beta")
    told = {name: call.argument(name) for name in names}
    vectors = {n: lifted(flow.get(r), axis, value.ndim) for n, r in told.items() if r is not None}

    def known(states: Sequence[int]) -> int:
        """As one step after the other: less the mean, times the factor, plus the offset."""
        state = dict(zip(vectors, states[1:], strict=True))
        made = result_of([states[0], state["moving_mean"]], all)
        made = result_of([made, state.get("gamma", UNIFORM)], any)
        return result_of([made, state["beta"]], all) if "beta" in state else made

    made = flow.align([value, *vectors.values()], value.shape, all, known=known)
    return _silenced(flow, call, value, made, axis)


def _silenced(flow: Flow, call: Call, value: Value, made: Value, axis: int) -> Value:
    """Note where nothing but a constant comes in, if that is looked for; it counts as zero then."""
    rules, group, after = flow.rules, value.group_at(axis), made.group_at(axis)
    if not isinstance(rules, Rules) or rules.silent is None or group is None or after is None:
        return made
    if rules.recorded.is_shared(call.op) or group.axes != (axis,):
        return made
    constant = group.states() <= UNIFORM
    rules.silent[id(call.op)] = (call.op, constant.ravel())
    others = tuple(each for each in made.groups if each is not after)
    quiet = after.with_states(np.where(constant, ZERO, after.states()))
    return replace(made, groups=(*others, quiet))


@rule("LayerNormalization", "RMSNormalization", "UnitNormalization")
def over_channels(flow: Flow, call: Call) -> Value:
    """What is normalized over stays: a mean over fewer channels would be another one."""
    value = given(flow, call)
    axis = call.op.axis
    over = sorted(a % value.ndim for a in (axis if isinstance(axis, list | tuple) else (axis,)))
    flow.pin_all(value, over, "it takes a mean over them")
    made = value.never_zero(UNKNOWN)
    for name in ("gamma", "scale", "beta"):
        if isinstance(ref := call.argument(name), Ref):
            made = flow.align([made, _spread(flow.get(ref), over, value.ndim)], made.shape, all)
    return made


def _spread(parameter: Value, over: Sequence[int], ndim: int) -> Value:
    """A parameter as a value that lies along some axes of several."""
    sizes = dict(zip(over, parameter.shape, strict=True))
    shape = tuple(sizes.get(axis, 1) for axis in range(ndim))
    groups = tuple(Group(group.codes.reshape(shape)) for group in parameter.groups)
    return Value(shape, groups)


@rule("GroupNormalization")
def in_groups(flow: Flow, call: Call) -> Value:
    """Groups go as wholes, since a mean runs over all channels of one."""
    value, count = given(flow, call), call.op.groups
    axis = call.op.axis % value.ndim
    if count < 1 or value.shape[axis] % count:
        raise Declined("it has groups of different sizes")
    others = [each for each in range(1, value.ndim) if each != axis]
    flow.pin_all(value, others, "it takes a mean over them")
    groups = []
    for group in value.groups:
        if group.axes != (axis,):
            groups.append(group.with_states(UNKNOWN))
            continue
        labels = group.compact().reshape(count, -1)
        flow.labels.tie(labels, labels[:, :1], "a group of a group norm goes as a whole")
        # What is known of each of a group is known of all; numbers less a mean are not zeros.
        together = group.states().reshape(count, -1).max(axis=1)
        if group.compact().size != count:
            together = np.where(together == UNIFORM, CONSTANT, together)
        states = together.repeat(labels.shape[1]).reshape(group.compact().shape)
        groups.append(group.with_states(states))
    made = replace(value, groups=tuple(groups))
    for name, zero in (("gamma", any), ("beta", all)):
        if isinstance(ref := call.argument(name), Ref):
            made = flow.align([made, lifted(flow.get(ref), axis, value.ndim)], made.shape, zero)
    return made

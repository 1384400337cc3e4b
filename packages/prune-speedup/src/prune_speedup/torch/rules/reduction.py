"""What runs over an axis: sums, means, extremes, softmax, sorts and scans.

h (8, 4)       axis 1:  1 2 3 4
h.sum(1)       the axis is gone; 1 to 4 may go where they are zero: a zero adds nothing
h.mean(1)      pending: right if it is used to normalise h, where "over what is left" is meant
h.amax(1)      fixed: the largest may be the one that goes
softmax(h, 1)  fixed: each depends on all the others
"""

from collections.abc import Sequence
from typing import Any

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.values import CONSTANT, Group, Value, at_first, expanded
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []

_SUMS = ("sum", "nansum", "linalg_vector_norm", "norm")
_MEANS = ("mean", "var", "std", "var_mean", "std_mean")
_LIKE_THEM = (*_MEANS, "amax", "amin", "max", "min", "median", "mode", "any", "all")
"""What of equal numbers is the same however many there are, and zero if they are."""


@rule("aten.sum", "aten.linalg_vector_norm", "aten.norm", "aten.mean", carries=True)
@rule("aten.var", "aten.std", "aten.var_mean", "aten.std_mean", carries=True)
@rule("aten.amax", "aten.amin", "aten.prod", "aten.logsumexp", "aten.argmax", "aten.argmin")
@rule("aten.any", "aten.all", "aten.max", "aten.min", "aten.median", "aten.mode", "aten.nansum")
def reduction(flow: Flow, call: Call) -> Sequence[Value | None]:
    """One number, or two, for all of an axis."""
    value = flow.get(call.args[0])
    shape = flow.result_shape(call)
    kind = "other"
    if call.name in _SUMS and _adds_zero(call):
        kind = "sum"
    elif call.name in _MEANS:
        kind = "mean"
    keep = len(shape) == value.ndim
    made = flow.reduce(value, _axes(call, value), keep=keep, kind=kind, why=call.name)
    if call.name not in _LIKE_THEM:
        made = made.at_least(CONSTANT)
    if call.name not in (*_LIKE_THEM, *_SUMS, "prod"):
        made = made.never_zero()
    # What is returned second is a mean, or says where the first was found.
    second = made if call.name in _MEANS else made.never_zero()
    return [
        None if output is None else made if at == 0 else second
        for at, output in enumerate(call.outputs)
    ]


@rule("aten._softmax", "aten._log_softmax", "aten._safe_softmax")
@rule("aten.softmax", "aten.log_softmax", "aten.logcumsumexp")
def along(flow: Flow, call: Call) -> Sequence[Value | None]:
    """Every index along the axis matters to every other."""
    made = _along(flow, call)
    return [each and each.never_zero() for each in made]


@rule("aten.sort", "aten.argsort", "aten.topk", "aten.kthvalue", "aten.cummax", "aten.cummin")
def ordered(flow: Flow, call: Call) -> Sequence[Value | None]:
    """The numbers along the axis in another order, and where they were."""
    made = _along(flow, call)
    numbers = 0 if call.name == "argsort" else 1
    return [each and (each if at < numbers else each.never_zero()) for at, each in enumerate(made)]


@rule("aten.cumsum", "aten.cumprod")
def scan(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A running sum, for which zeros elsewhere are zeros."""
    return [each and each.at_least(CONSTANT) for each in _along(flow, call)]


def _along(flow: Flow, call: Call) -> list[Value | None]:
    """Results in which every index along an axis depends on every one of the operand."""
    value, axis = flow.get(call.args[0]), call.argument("dim")
    flow.pin(value, axis, f"{call.name} runs along it")
    axis %= max(value.ndim, 1)
    results: list[Value | None] = []
    for number, index in enumerate(call.outputs):
        shape = flow.result_shape(call, number)
        groups = []
        for group in value.groups:
            thin = at_first(group.only(set(group.axes) - {axis}).codes, (axis,))
            if len(shape) < value.ndim:
                thin = thin.squeeze(axis)
            groups.append(Group(expanded(thin, shape)))
        gone = value.ndim - len(shape)
        free = frozenset(at - gone * (at > axis) for at in value.free if at != axis)
        kept = tuple(group for group in groups if group.axes)
        results.append(None if index is None else Value(shape, kept, free))
    return results


def _axes(call: Call, value: Value) -> list[int]:
    axes: Any = call.argument("dim")
    if isinstance(axes, int):
        axes = [axes]
    return list(axes) if axes else list(range(value.ndim))


def _adds_zero(call: Call) -> bool:
    """Whether a zero adds nothing: not so for a norm of order 0 or below."""
    if call.name in ("sum", "nansum"):
        return True
    order = call.argument("ord" if call.name == "linalg_vector_norm" else "p")
    return order is None or (isinstance(order, int | float) and order > 0)

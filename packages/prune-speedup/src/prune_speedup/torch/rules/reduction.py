"""What runs over an axis: sums, means, extremes, softmax, sorts and scans."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.values import UNKNOWN, Group, Value
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []

_SUMS = ("sum", "linalg_vector_norm", "norm")
_OF_THEM = ("amax", "amin", "max", "min", "median", "mode")
"""What is one of the numbers that it is taken of, and zero if they are."""

_MEANS = ("mean", "var", "std", "var_mean", "std_mean")


@rule("aten.sum", "aten.linalg_vector_norm", "aten.norm", "aten.mean", carries=True)
@rule("aten.var", "aten.std", "aten.var_mean", "aten.std_mean", carries=True)
@rule("aten.amax", "aten.amin", "aten.prod", "aten.logsumexp", "aten.argmax", "aten.argmin")
@rule("aten.any", "aten.all", "aten.max", "aten.min", "aten.median", "aten.mode", "aten.nansum")
def reduction(flow: Flow, call: Call) -> Sequence[Value | None]:
    """One number, or two, for all of an axis."""
    value = flow.get(call.args[0])
    shape = flow.result_shape(call)
    axes = _axes(call, value)
    kind = "other"
    if call.name in _SUMS and _adds_zero(call):
        kind = "sum"
    elif call.name in _MEANS:
        kind = "mean"
    made = flow.reduce(value, axes, keep=len(shape) == value.ndim, kind=kind, why=call.name)
    if call.name not in (*_SUMS, "mean", *_OF_THEM):
        made.groups = tuple(group.with_states(UNKNOWN) for group in made.groups)
    # What is returned second says where the first was found.
    groups = tuple(group.with_states(UNKNOWN) for group in made.groups)
    where = replace(made, groups=groups)
    return [
        None if output is None else made if at == 0 else where
        for at, output in enumerate(call.outputs)
    ]


@rule(
    "aten._softmax", "aten._log_softmax", "aten._safe_softmax", "aten.softmax", "aten.log_softmax"
)
@rule("aten.logcumsumexp", "aten.sort", "aten.argsort", "aten.topk", "aten.kthvalue")
def along(flow: Flow, call: Call) -> Sequence[Value | None]:
    """Every index along the axis matters to every other."""
    value = flow.get(call.args[0])
    axis = _axis_of(call, value)
    flow.pin(value, axis, f"{call.name} runs along it")
    return _keeping_groups(flow, call, value, axis, zero=False)


@rule("aten.cumsum", "aten.cumprod")
def scan(flow: Flow, call: Call) -> Sequence[Value | None]:
    """A running sum, for which zeros elsewhere are zeros."""
    value = flow.get(call.args[0])
    flow.pin(value, call.args[1], f"{call.name} runs along it")
    return _keeping_groups(flow, call, value, call.args[1], zero=True)


def _keeping_groups(
    flow: Flow, call: Call, value: Value, axis: int, *, zero: bool
) -> list[Value | None]:
    axis %= max(value.ndim, 1)
    results: list[Value | None] = []
    for at in range(len(call.outputs)):
        shape = flow.result_shape(call, at)
        groups = []
        for group in value.groups:
            thin = group.only(set(group.axes) - {axis})
            made = Group(thin.codes.narrow(axis, 0, 1).expand(shape))
            groups.append(made if zero else made.with_states(UNKNOWN))
        kept = tuple(group for group in groups if group.axes)
        results.append(Value(shape, kept, value.free - {axis}))
    return results


def _axis_of(call: Call, value: Value) -> int:
    default = -1
    position = 2 if call.name in ("topk", "kthvalue") else 1
    axis = call.args[position] if len(call.args) > position else call.kwargs.get("dim", default)
    return axis if isinstance(axis, int) and not isinstance(axis, bool) else default


def _axes(call: Call, value: Value) -> list[int]:
    axes: Any = call.kwargs.get("dim")
    position = 2 if call.name in ("linalg_vector_norm", "norm") else 1
    overload = str(call.target).rpartition(".")[2]
    if axes is None and overload not in ("default", "dtype") and len(call.args) > position:
        axes = call.args[position]
    elif axes is None and call.name in ("linalg_vector_norm", "amax", "amin", "argmax", "argmin"):
        axes = call.args[position] if len(call.args) > position else None
    if isinstance(axes, int):
        axes = [axes]
    return list(axes) if axes else list(range(value.ndim))


def _adds_zero(call: Call) -> bool:
    """Whether a zero adds nothing: not so for a norm of order 0 or below."""
    if call.name == "sum":
        return True
    order = call.args[1] if len(call.args) > 1 else call.kwargs.get("ord", 2)
    return order is None or (isinstance(order, int | float) and order > 0)

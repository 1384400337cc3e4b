"""What works element by element: labels at the same position are the same label.

    a (8, 4)   axis 1:  1 2 3 4  ┐
    b (4,)     axis 0:  5 6 7 8  ┘ tied: 1=5 2=6 3=7 4=8
    a + b      axis 1:  1 2 3 4

Whether zeros stay zeros is asked of the operator itself: `relu(0)` is 0, `exp(0)` is not.
"""

from collections.abc import Sequence
from typing import Any

import torch

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref, replace_refs, text_of
from prune_speedup.engine.values import CONSTANT, UNKNOWN, Value
from prune_speedup.torch.rules.registry import rule

__all__: list[str] = []

_PROBE = (0.7, -1.3, 2.1, -0.4, 5.0, -3.0)
_known: dict[object, bool] = {}

_INVERSES = ("rsqrt", "reciprocal")
_ON_THE_WAY = frozenset({"add", "sub", "mul", "div", "true_divide", "neg", "square", "clamp"}) | {
    "sqrt",
    "rsqrt",
    "reciprocal",
    "pow",
    "clamp_min",
    "clamp_max",
    "maximum",
    "rsub",
    "addcmul",
}
"""What a norm does to its statistics before it applies them."""


@rule(
    "kind.pointwise",
    # Those that older releases of torch do not tag as pointwise.
    *(f"aten.{name}" for name in ("celu", "elu", "hardsigmoid", "hardtanh", "ldexp", "selu")),
    "aten.leaky_relu",
    "aten._prelu_kernel",
    "aten.complex",
    "aten.polar",
    "aten.rrelu_with_noise",
    "aten.native_dropout",
    "aten.dropout",
    carries=True,
)
def pointwise(flow: Flow, call: Call) -> Sequence[Value | None]:
    """Tie the operands where they meet."""
    read = call.inputs()
    operands = [flow.values[index] for index in read]
    dtypes = [flow.metas[index].dtype for index in read]

    def zero(flags: Sequence[bool]) -> bool:
        return stays_zero(call, dtypes, flags)

    _check_norms(flow, call, operands)
    made = flow.align(operands, flow.result_shape(call), zero)
    if torch.Tag.nondeterministic_seeded in getattr(call.target, "tags", ()):
        made = made.at_least(UNKNOWN)
    negative = call.name.startswith("pow") and _is_negative(call.args[-1])
    if negative or call.name.rstrip("_") in _INVERSES or (_divides(call) and operands[-1].pending):
        made.pending = tuple(each._replace(inverse=True) for each in made.pending)
    return [made if output is not None else None for output in call.outputs]


def _check_norms(flow: Flow, call: Call, operands: Sequence[Value]) -> None:
    """See to it that a mean over what may go is used as a norm uses it, and no other way."""
    name = call.name.rstrip("_")
    for at, operand in enumerate(operands):
        for pending in operand.pending:
            home = flow.is_home(pending, operands)
            centres = name == "sub" or (_divides(call) and at > 0)
            scales = name == "mul" and pending.inverse
            if name not in _ON_THE_WAY or (home and not centres and not scales):
                flow.settle(operand, flow.where)


def _is_negative(number: object) -> bool:
    return isinstance(number, int | float) and number < 0


def _divides(call: Call) -> bool:
    return call.name.rstrip("_") in ("div", "true_divide")


@rule("aten.copy", carries=True)
def copy(flow: Flow, call: Call) -> Value:
    """Overwrite: the shape of the one, the numbers of the other."""
    target, source = flow.get(call.args[0]), flow.get(call.args[1])
    return flow.align([target, source], target.shape, lambda flags: flags[1])


@rule("aten.bucketize", "aten.searchsorted")
def bucketize(flow: Flow, call: Call) -> Value:
    """In which of some buckets each number is: `searchsorted` takes the two the other way round."""
    numbers, bounds = (flow.get(call.argument(name)) for name in _SEARCHED[call.name])
    flow.fix_value(bounds, "they are the bounds of buckets")
    if bounds.ndim > 1:
        flow.fix_value(numbers, "each row is looked up in a row of its own")
    return Value(numbers.shape, numbers.groups, numbers.free).never_zero()


_SEARCHED = {"bucketize": ("self", "boundaries"), "searchsorted": ("self", "sorted_sequence")}


@rule("aten.tril", "aten.triu")
def triangle(flow: Flow, call: Call) -> Value:
    """Position against position: neither of the last two axes can lose an index."""
    value = flow.get(call.args[0])
    flow.pin_all(value, (-2, -1), "a triangle is cut out of this axis")
    return value.at_least(CONSTANT)


def stays_zero(call: Call, dtypes: Sequence[torch.dtype], flags: Sequence[bool]) -> bool:
    """Whether the operator gives zero wherever the flagged operands are zero.

    It is asked, not looked up: run on a few numbers with zeros in the flagged places. So a new
    operator needs no entry in a table.
    """
    if not any(flags):
        return False
    scalars = repr(replace_refs((call.args, call.kwargs), lambda _: "*"))
    key = (text_of(call.target), scalars, tuple(dtypes), tuple(flags))
    if key not in _known:
        _known[key] = _ask(call, dtypes, flags)
    return _known[key]


def _ask(call: Call, dtypes: Sequence[torch.dtype], flags: Sequence[bool]) -> bool:
    probes = iter(
        [
            _probe(at, dtype, flag)
            for at, (dtype, flag) in enumerate(zip(dtypes, flags, strict=True))
        ]
    )

    def next_probe(_: Ref) -> Any:
        return next(probes)

    args, kwargs = replace_refs((call.args, call.kwargs), next_probe)
    try:
        result = call.target(*args, **kwargs)
    except (RuntimeError, NotImplementedError, TypeError, IndexError):
        return False
    first = result[0] if isinstance(result, list | tuple) else result
    return isinstance(first, torch.Tensor) and bool((first == 0).all())


def _probe(position: int, dtype: torch.dtype, zero: bool) -> torch.Tensor:
    numbers = torch.tensor(_PROBE).roll(position)
    if zero:
        return torch.zeros(len(_PROBE), dtype=dtype)
    if dtype == torch.bool:
        return numbers > 0
    return numbers.to(dtype)

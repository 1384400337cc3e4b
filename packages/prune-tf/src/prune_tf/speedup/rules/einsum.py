"""Products that are summed over axes: einsum, matmul, attention."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import keras
import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.rules import Declined
from prune_speedup.engine.values import UNKNOWN, Group, Value
from prune_tf.speedup.rules.registry import rule
from prune_tf.speedup.rules.tools import activated, arguments, given, operand

__all__: list[str] = []


@rule("Einsum")
def einsum(flow: Flow, call: Call) -> Value:
    """`keras.ops.einsum`."""
    operands = [operand(flow, each) for each in _tensors(arguments(call)[0])]
    return _summed(flow, call, call.op.subscripts, operands)


@rule("Matmul", "Dot")
def matmul(flow: Flow, call: Call) -> Value:
    """`x1 @ x2`."""
    first, second = (operand(flow, each) for each in _tensors(arguments(call)))
    ranks = first.ndim, second.ndim
    if min(ranks) < 2 or (call.name == "Dot" and ranks[1] > 2):
        raise Declined("it is a product of other than matrices")
    front = ascii_letters[3 : 1 + max(ranks)]
    left, right = (front[len(front) - (rank - 2) :] if rank > 2 else "" for rank in ranks)
    return _summed(flow, call, f"{left}ab,{right}bc->{front}ac", [first, second])


@rule("EinsumDense")
def einsum_dense(flow: Flow, call: Call) -> Value:
    """`einsum(x, kernel) + bias`: the projections of attention, for instance."""
    kernel = flow.get(call.argument("kernel"))
    made = _summed(flow, call, call.op.equation, [given(flow, call), kernel])
    if isinstance(bias := call.argument("bias"), Ref):
        made = flow.align([made, flow.get(bias)], made.shape, all)
    return activated(flow, call, made)


def _summed(flow: Flow, call: Call, equation: str, operands: Sequence[Value]) -> Value:
    """What is left of a product in einsum notation: `bij,bjk->bik`."""
    equation = equation.replace(" ", "")
    sides, arrow, result = equation.partition("->")
    if not arrow:
        raise Declined("it does not say what it returns")
    ranks = [*(each.ndim for each in operands), len(flow.result_shape(call))]
    terms = _without_dots([*sides.split(","), result], ranks)
    if any(len(set(term)) < len(term) for term in terms):
        raise Declined("it takes a diagonal")
    return flow.contract(*operands, f"{','.join(terms[:-1])}->{terms[-1]}")


def _without_dots(terms: Sequence[str], ranks: Sequence[int]) -> list[str]:
    """Write letters for the axes that `...` stands for."""
    free = [letter for letter in ascii_letters if letter not in "".join(terms)]
    counts = [
        rank - len(term.replace("...", "")) if "..." in term else 0
        for term, rank in zip(terms, ranks, strict=True)
    ]
    letters = "".join(free[: max(counts)])
    return [
        term.replace("...", letters[len(letters) - count :])
        for term, count in zip(terms, counts, strict=True)
    ]


@rule("DotProductAttention")
def dot_product_attention(flow: Flow, call: Call) -> Value:
    """`softmax(q · k) · v`, head by head: heads go as wholes, and so do their inner channels."""
    args, kwargs = arguments(call)
    query, key, value, *others = (operand(flow, each) for each in _tensors((args, kwargs)))
    for each in (query, key, value):
        flow.pin_all(each, [0, 1], "it mixes them")
    for each in others:
        flow.fix_value(each, "it masks with them")
        if each.ndim >= 3 and each.shape[-3] > 1:
            flow.pin(query, 2, "it has a mask or a bias for each head")
    scale = args[5] if len(args) > 5 else kwargs.get("scale")
    if scale is None and getattr(call.op, "scale", None) is None:
        flow.pin(query, 3, "it scales by how many there are")
    shared = query.shape[2] // key.shape[2]
    key, value = (_repeated(each, shared) for each in (key, value))
    shares = flow.contract(query, key, "bqhd,bkhd->bqhk").never_zero(UNKNOWN)
    return flow.contract(shares, value, "bqhk,bkhd->bqhd")


def _repeated(value: Value, times: int) -> Value:
    """Each head as often as it is shared."""
    if times == 1:
        return value
    shape = (*value.shape[:2], value.shape[2] * times, value.shape[3])
    groups = []
    for group in value.groups:
        heads = (
            np.repeat(group.codes[:1, :1], times, 2) if 2 in group.axes else group.codes[:, :, :1]
        )
        groups.append(Group(np.broadcast_to(heads, shape)))
    return Value(shape, tuple(groups))


def _tensors(arguments: Any) -> list[Any]:
    return [
        each
        for each in keras.tree.flatten(arguments)
        if each is not None and not isinstance(each, int | float | bool | str)
    ]

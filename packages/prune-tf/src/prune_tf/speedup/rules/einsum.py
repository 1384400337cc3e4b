"""Products that are summed over axes: einsum, matmul, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_letters
from typing import Any

import numpy as np

from prune_tf.axes import output_axis
from prune_tf.speedup.analysis import Analysis, Flow, Use
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.activations import activated, is_elementwise
from prune_tf.speedup.rules.operand import Operand, operand
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []

Array = np.ndarray[Any, Any]


@rule("Einsum", wide=True)
def einsum(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Follow `keras.ops.einsum`."""
    operands = [operand(analysis, each) for each in call.arguments[0] if not isinstance(each, str)]
    parts = _summed(analysis, call, call.op.subscripts, operands)
    return None if parts is None else [analysis.made(call.outputs[0], parts)]


@rule("Matmul", "Dot", wide=True)
def matmul(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Follow `x1 @ x2`."""
    first, second = (operand(analysis, each) for each in call.arguments[0])
    ranks = len(first.shape), len(second.shape)
    if min(ranks) < 2 or (call.kind == "Dot" and ranks[1] > 2):
        return None
    front = ascii_letters[3 : 1 + max(ranks)]
    left, right = (front[len(front) - (rank - 2) :] if rank > 2 else "" for rank in ranks)
    equation = f"{left}ab,{right}bc->{front}ac"
    parts = _summed(analysis, call, equation, [first, second])
    return None if parts is None else [analysis.made(call.outputs[0], parts)]


@rule("EinsumDense", wide=True)
def einsum_dense(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Follow `einsum(x, kernel) + bias`: the projections of attention, for instance."""
    layer, [source] = call.op, call.inputs
    kernel = operand(analysis, layer._kernel)
    parts = _summed(analysis, call, layer.equation, [operand(analysis, source), kernel])
    if parts is None:
        return None
    if layer.bias is not None:
        bias = operand(analysis, layer.bias)
        parts = [_plus(analysis, part, bias) for part in parts]
    elementwise = is_elementwise(layer.activation)
    for part in parts if not elementwise else ():
        analysis.labels.fix(part.labels, f"the activation of {layer.name!r} may mix channels")
    known = [activated(layer.activation, p.constants) if elementwise else None for p in parts]
    parts = [
        replace(part, constants=np.full(len(part.labels), np.nan) if each is None else each)
        for part, each in zip(parts, known, strict=True)
    ]
    channels = kernel.parts.get(output_axis(layer) - len(kernel.shape))
    if channels is not None:
        analysis.axes[id(layer)].setdefault(("", 0), channels.labels)
    analysis.shaped[id(layer)] = call
    _remember_sizes(analysis, layer, parts)
    return [analysis.made(call.outputs[0], parts)]


def _remember_sizes(analysis: Analysis, layer: Any, parts: Sequence[Flow]) -> None:
    for attribute in ("partial_output_shape", "full_output_shape"):
        shape = getattr(layer, attribute, None)
        if shape is None:
            continue

        def smaller(plan: Any, shape: Any = tuple(shape)) -> tuple[Any, ...]:
            sizes = list(shape)
            for part in parts:
                if len(sizes) >= -part.axis and sizes[part.axis] is not None:
                    sizes[part.axis] = len(plan.kept(part.labels))
            return tuple(sizes)

        analysis.attributes[id(layer)][attribute] = smaller


def _plus(analysis: Analysis, part: Flow, bias: Operand) -> Flow:
    if not bias.spans(part.axis):
        number = bias.number if bias.number is not None else np.nan
        return replace(part, constants=part.constants + number)
    known = bias.parts.get(part.axis)
    if known is None:
        analysis.labels.fix(part.labels, "a bias that two layers share is added to them")
        return replace(part, constants=np.full(len(part.labels), np.nan))
    analysis.labels.tie(part.labels, known.labels)
    return replace(part, constants=part.constants + known.constants)


def _summed(
    analysis: Analysis, call: Call, equation: str, operands: Sequence[Operand]
) -> list[Flow] | None:
    """Return what is known of the axes of a result in einsum notation: `bij,bjk->bik`."""
    equation = equation.replace(" ", "")
    if "->" not in equation:
        return None
    sides, result = equation.split("->")
    terms = sides.split(",")
    ranks = [len(each.shape) for each in operands]
    expanded = _without_dots([*terms, result], [*ranks, len(call.outputs[0].shape)])
    if expanded is None:
        return None
    *terms, result = expanded
    parts = []
    for letter in dict.fromkeys("".join(terms)):
        places = [
            (each, term.index(letter) - len(term))
            for each, term in zip(operands, terms, strict=True)
            if letter in term
        ]
        part = _of_letter(analysis, call, [(e, axis) for e, axis in places if e.spans(axis)])
        if part is None:
            continue
        if letter in result:
            parts.append(replace(part, axis=result.index(letter) - len(result)))
        else:
            matters = part.constants != 0
            still = np.where(matters, np.nan, 0.0)
            analysis.uses.append(Use(call.op, part.labels, still, matters, None, 0, None))
    return parts


def _of_letter(
    analysis: Analysis, call: Call, places: Sequence[tuple[Operand, int]]
) -> Flow | None:
    """Tie what lies along a letter; a product is zero wherever any of its factors is."""
    known = [each.parts[axis] for each, axis in places if axis in each.parts]
    if not known or len({len(part.labels) for part in known}) != 1:
        for part in known:
            analysis.labels.fix(part.labels, f"{call.op.name!r} has them meet others")
        return None
    for part in known[1:]:
        analysis.labels.tie(known[0].labels, part.labels)
    if len(known) < len(places):
        analysis.labels.fix(known[0].labels, f"{call.op.name!r} has them meet what cannot be cut")
    zero = np.any([part.constants == 0 for part in known], axis=0)
    return Flow(known[0].labels, np.where(zero, 0.0, np.nan))


def _without_dots(terms: Sequence[str], ranks: Sequence[int]) -> list[str] | None:
    """Write letters for the axes that `...` stands for."""
    free = [letter for letter in ascii_letters if letter not in "".join(terms)]
    most = max(
        (rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term),
        default=0,
    )
    letters = "".join(free[:most])
    made = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term) + 3
        made.append(term.replace("...", letters[most - count :] if count else ""))
    if any(len(term) != rank for term, rank in zip(made, ranks, strict=True)):
        return None
    return made if all(len(set(term)) == len(term) for term in made) else None


@rule("DotProductAttention", wide=True)
def dot_product_attention(analysis: Analysis, call: Call) -> list[Flow] | None:
    """`softmax(q · k) · v`, head by head: heads go as wholes, and so do their inner channels."""
    query, key, value, *others = (operand(analysis, each) for each in _tensors(call.arguments[0]))
    parts = []
    heads = [each.parts.get(-2) for each in (query, key, value)]
    if all(part is not None for part in heads):
        q, k, v = (part for part in heads if part is not None)
        shared = len(q.labels) // len(k.labels)
        analysis.labels.tie(k.labels, v.labels)
        analysis.labels.tie(q.labels, np.repeat(v.labels, shared))
        parts.append(Flow(q.labels, np.where(np.repeat(v.constants, shared) == 0, 0.0, np.nan), -2))
        if any(each.spans(-3) for each in others):
            why = f"{call.op.name!r} has a mask or a bias for each head"
            analysis.labels.fix(q.labels, why)
    else:
        for part in heads:
            if part is not None:
                analysis.labels.fix(part.labels, f"{call.op.name!r} pairs them with fixed heads")
    inner = _of_letter(analysis, call, [(query, -1), (key, -1)])
    if inner is not None:
        if _scale(call) is None:
            analysis.labels.fix(inner.labels, f"{call.op.name!r} scales by how many there are")
        matters = inner.constants != 0
        still = np.where(matters, np.nan, 0.0)
        analysis.uses.append(Use(call.op, inner.labels, still, matters, None, 0, None))
    if -1 in value.parts:
        part = value.parts[-1]
        parts.append(replace(part, constants=np.where(part.constants == 0, 0.0, np.nan)))
    for each in (query, key, value):
        for axis, part in each.parts.items():
            if axis < -2:
                analysis.labels.fix(part.labels, f"{call.op.name!r} mixes them")
    for each in others:
        for part in each.parts.values():
            analysis.labels.fix(part.labels, f"{call.op.name!r} masks with them")
    return [analysis.made(call.outputs[0], parts)]


def _tensors(arguments: Sequence[Any]) -> list[Any]:
    return [
        each for each in arguments if each is not None and not isinstance(each, int | float | bool)
    ]


def _scale(call: Call) -> Any:
    args, kwargs = call.arguments
    given = args[5] if len(args) > 5 else kwargs.get("scale")
    return given if given is not None else getattr(call.op, "scale", None)

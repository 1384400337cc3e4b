"""Where tensors meet: sums, products, concatenations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.operand import Operand, operand
from prune_tf.speedup.rules.registry import rule

__all__: list[str] = []

Array = np.ndarray[Any, Any]


def _product(first: Array, second: Array) -> Array:
    # 0 times anything is 0, also what varies.
    return np.where((first == 0) | (second == 0), 0.0, first * second)


@rule("Add", wide=True)
def add(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Channels that are added to each other go together."""
    return _together(analysis, call, np.add)


@rule("Subtract", wide=True)
def subtract(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition."""
    return _together(analysis, call, np.subtract)


@rule("Multiply", wide=True)
def multiply(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition; a gate that is 0 closes whatever comes."""
    return _together(analysis, call, _product)


@rule("Maximum", wide=True)
def maximum(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition."""
    return _together(analysis, call, np.maximum)


@rule("Minimum", wide=True)
def minimum(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition."""
    return _together(analysis, call, np.minimum)


@rule("Average", wide=True)
def average(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition, divided by how many there are."""
    found = _together(analysis, call, np.add)
    if found is None:
        return None
    count = len(call.inputs)
    parts = [replace(part, constants=part.constants / count) for part in found[0].parts]
    return [analysis.made(call.outputs[0], parts)]


@rule("CustomScaleLayer", wide=True)
def scaled_sum(analysis: Analysis, call: Call) -> list[Flow] | None:
    """`first + second · scale`, the residual of Inception-ResNet."""
    scale = float(call.op.scale)
    return _together(analysis, call, lambda first, second: first + scale * second)


def _together(
    analysis: Analysis, call: Call, combine: Callable[[Array, Array], Array]
) -> list[Flow] | None:
    (args, kwargs) = call.arguments
    given = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
    given = [each for each in (*given, *kwargs.values()) if each is not None]
    try:
        operands = [operand(analysis, each) for each in given]
    except (TypeError, ValueError):
        return None
    parts = []
    for axis in range(-len(call.outputs[0].shape), 0):
        part = _meeting(analysis, call, operands, axis, combine)
        if part is not None:
            parts.append(part)
    return [analysis.made(call.outputs[0], parts)]


def _meeting(
    analysis: Analysis,
    call: Call,
    operands: Sequence[Operand],
    axis: int,
    combine: Callable[[Array, Array], Array],
) -> Flow | None:
    """Return what becomes of one axis where operands meet, or None if nothing is known of it."""
    wide = [each for each in operands if each.spans(axis)]
    known = [each.parts[axis] for each in wide if axis in each.parts]
    for each in operands:
        if not each.spans(axis) and axis in each.parts:
            # One channel that is spread over many belongs to none of them.
            why = f"{call.op.name!r} spreads it over many channels"
            analysis.labels.fix(each.parts[axis].labels, why)
    if not known or len({len(part.labels) for part in known}) != 1:
        for part in known:
            analysis.labels.fix(part.labels, f"{call.op.name!r} has them meet others")
        return None
    for part in known[1:]:
        analysis.labels.tie(known[0].labels, part.labels)
    if len(known) < len(wide):
        why = f"{call.op.name!r} has them meet what cannot be cut"
        analysis.labels.fix(known[0].labels, why)
    values = [_values(each, axis, len(known[0].labels)) for each in operands]
    with np.errstate(all="ignore"):
        constants: Array = reduce(combine, values)
    constants = np.where(np.isfinite(constants), constants, np.nan)
    return Flow(known[0].labels, constants, axis)


def _values(each: Operand, axis: int, count: int) -> Array:
    if each.number is not None:
        return np.full(count, each.number)
    if axis in each.parts and each.spans(axis):
        return each.parts[axis].constants
    return np.full(count, np.nan)


def _quotient(first: Array, second: Array) -> Array:
    return np.where((first == 0) & (second != 0), 0.0, first / second)


@rule("Divide", "TrueDivide", wide=True)
def divide(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition; 0 stays 0."""
    return _together(analysis, call, _quotient)


@rule("Power", wide=True)
def power(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition."""
    return _together(analysis, call, np.power)


@rule("Where", wide=True)
def where(analysis: Analysis, call: Call) -> list[Flow] | None:
    """One of two, and which it is depends on a third: a constant only where both are the same."""

    def either(first: Array, second: Array) -> Array:
        return np.where(first == second, first, np.nan)

    _, *both = (operand(analysis, each) for each in call.arguments[0])
    if len(both) != 2:
        return None
    found = _together(analysis, call, np.add)
    if found is None:
        return None
    parts = [
        replace(part, constants=either(*(_values(b, part.axis, len(part.labels)) for b in both)))
        for part in found[0].parts
    ]
    return [analysis.made(call.outputs[0], parts)]


@rule(
    *("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"),
    *("LogicalAnd", "LogicalOr", "LogicalXor"),
    wide=True,
)
def compare(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As addition; what is true or false there is not followed."""
    return _together(analysis, call, lambda first, second: np.full(first.shape, np.nan))


@rule("Stack", wide=True)
def stack(analysis: Analysis, call: Call) -> list[Flow] | None:
    """As concatenation along an axis that is new, so that the others go together."""
    operands = [operand(analysis, each) for each in call.arguments[0][0]]
    rank = len(call.outputs[0].shape)
    new = call.op.axis % rank - rank
    parts = []
    for axis in range(1 - rank, 0):
        part = _meeting(analysis, call, operands, axis, _agreed)
        if part is not None:
            # The axes in front of the new one are one further from the end.
            parts.append(replace(part, axis=axis - 1 if axis <= new else axis))
    return [analysis.made(call.outputs[0], parts)]


@rule("Concatenate", wide=True)
def concatenate(analysis: Analysis, call: Call) -> list[Flow] | None:
    """Channels side by side, or the same channels at more places."""
    given = call.arguments[0][0]
    operands = [operand(analysis, each) for each in given]
    rank = len(call.outputs[0].shape)
    joined = call.op.axis % rank - rank
    parts = []
    for axis in range(-rank, 0):
        known = [each.parts.get(axis) for each in operands]
        if not any(known):
            continue
        if axis == joined:
            each_part = [
                part if part is not None else _whole(analysis, each, axis)
                for part, each in zip(known, operands, strict=True)
            ]
            if any(part is None for part in each_part):
                return None
            labels, constants = (
                np.concatenate([getattr(part, name) for part in each_part])
                for name in ("labels", "constants")
            )
            parts.append(Flow(labels, constants, axis))
            continue
        part = _meeting(analysis, call, operands, axis, _agreed)
        if part is not None:
            parts.append(part)
    return [analysis.made(call.outputs[0], parts)]


def _whole(analysis: Analysis, each: Operand, axis: int) -> Flow | None:
    """Labels for places of which nothing is known; they stay."""
    size = each.shape[axis]
    if size is None:
        return None
    labels = analysis.labels.new(size)
    analysis.labels.fix(labels, "they are joined to others, and cannot be cut")
    return Flow(labels, np.full(size, np.nan), axis)


def _agreed(first: Array, second: Array) -> Array:
    """The constants on which two agree."""
    return np.where(first == second, first, np.nan)

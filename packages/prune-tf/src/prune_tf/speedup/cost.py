"""What a model does for one sample, counted by shapes: before a plan, and after it.

What is counted is what `torch.utils.flop_counter` counts: products and convolutions, two operations
per multiply-add. So the same network costs the same in both frameworks.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from string import ascii_letters
from typing import Any

import keras
import numpy as np

from prune_speedup.budget.costs import Cost, Operation, Shape, workload_of_plan
from prune_speedup.engine.plan import Plan
from prune_tf.speedup.open_sizes import SAMPLES

__all__ = ["bytes_of", "cost_of", "flops_of"]


def cost_of(plan: Plan) -> Cost:
    """Count what is left after a plan: parameters that are read, and operations per sample."""
    left = workload_of_plan(plan)
    unread = set(plan.labelling.graph.unread)
    parameters = sum(prod(s) for name, s in left.parameters.items() if name not in unread)
    return Cost(parameters, sum(map(flops_of, left.operations)) // SAMPLES)


def bytes_of(model: keras.Model) -> int:
    """Count the memory that all weights of a model take."""
    sizes = {"bool": 1, "bfloat16": 2}
    total = 0
    for variable in model.weights:
        kind = keras.backend.standardize_dtype(variable.dtype)
        each = sizes.get(kind) or (0 if kind == "string" else np.dtype(kind).itemsize)
        total += prod(variable.shape) * each
    return total


def flops_of(operation: Operation) -> int:
    """Count the floating-point operations of one call, for all samples."""
    formula = _FORMULAS.get(operation.name.removeprefix("keras."))
    return 0 if formula is None else 2 * formula(operation)


def _dense(call: Operation) -> int:
    return prod(call.outputs[0]) * _weight(call, "kernel")[0]


def _convolution(call: Operation) -> int:
    return prod(call.outputs[0]) * prod(_weight(call, "kernel")[:-1])


def _transposed(call: Operation) -> int:
    return prod(call.inputs[0]) * prod(_weight(call, "kernel")[:-1])


def _depthwise(call: Operation) -> int:
    return prod(call.outputs[0]) * prod(_weight(call, "kernel")[:-2])


def _separable(call: Operation) -> int:
    first, second = _weight(call, "depthwise_kernel"), _weight(call, "pointwise_kernel")
    places = prod(call.outputs[0]) // second[-1]
    return places * second[-2] * (prod(first[:-2]) + second[-1])


def _recurrent(call: Operation) -> int:
    weights = prod(_weight(call, "kernel")) + prod(_weight(call, "recurrent_kernel"))
    samples, steps = call.inputs[0][:2]
    return samples * steps * weights


def _matmul(call: Operation) -> int:
    first = call.args[0]
    return prod(call.outputs[0]) * first[-1] if _is_shape(first) else 0


def _einsum(call: Operation) -> int:
    shapes: list[Shape] = [each for each in call.args if _is_shape(each)]
    if "kernel" in call.kwargs:
        shapes.append(_weight(call, "kernel"))
    return _letters(call.kwargs["equation"], shapes, len(call.outputs[0]))


def _attention(call: Operation) -> int:
    if len(call.inputs) < 3:  # one of them is what the model's Python has made already
        return 0
    query, key, value = call.inputs[:3]
    places = prod(query[:-1]) * key[1]
    return places * (query[-1] + value[-1])


def _weight(call: Operation, name: str) -> Shape:
    shape: Shape = call.kwargs[name]
    return shape


def _is_shape(given: Any) -> bool:
    return isinstance(given, tuple) and bool(given) and all(isinstance(size, int) for size in given)


def _letters(equation: str, shapes: list[Shape], rank: int) -> int:
    """How many products an einsum takes: one for each place of all of its letters."""
    sides, _, result = equation.replace(" ", "").partition("->")
    free = [letter for letter in ascii_letters if letter not in equation]
    dots = "".join(free[: max(0, rank - len(result.replace("...", "")))])
    sizes: dict[str, int] = {}
    for term, shape in zip(sides.split(","), shapes, strict=False):
        count = len(shape) - len(term.replace("...", ""))
        written = term.replace("...", dots[len(dots) - count :] if count else "")
        for letter, size in zip(written, shape, strict=False):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return prod(sizes.values())


_FORMULAS: dict[str, Callable[[Operation], int]] = {
    "Dense": _dense,
    "DotProductAttention": _attention,
    "Einsum": _einsum,
    "EinsumDense": _einsum,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "SimpleRNN": _recurrent,
    **dict.fromkeys(("Matmul", "Dot"), _matmul),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
    **{f"Conv{n}DTranspose": _transposed for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": _depthwise for n in (1, 2)},
    **{f"SeparableConv{n}D": _separable for n in (1, 2)},
}

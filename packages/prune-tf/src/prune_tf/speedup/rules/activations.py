"""Which functions treat each value by itself."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import keras

__all__ = ["OPERATIONS", "is_elementwise"]

ELEMENTWISE = frozenset(
    {
        "celu",
        "elu",
        "exponential",
        "gelu",
        "hard_shrink",
        "hard_sigmoid",
        "hard_silu",
        "hard_swish",
        "hard_tanh",
        "leaky_relu",
        "linear",
        "log_sigmoid",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "soft_shrink",
        "softplus",
        "softsign",
        "sparse_plus",
        "squareplus",
        "swish",
        "tanh",
        "tanh_shrink",
        "threshold",
    }
)


OPERATIONS = frozenset(
    {
        *("Abs", "Absolute", "Add", "Arctan", "Ceil", "Clip", "Cos", "Divide", "Elu", "Erf"),
        *("Exp", "Expm1", "Floor", "Gelu", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu"),
        *("Log", "Log1p", "LogSigmoid", "Maximum", "Minimum", "Multiply", "Negative"),
        *("Power", "Reciprocal", "Relu", "Relu6", "Round", "Rsqrt", "Selu", "Sigmoid", "Sign"),
        *("Silu", "Sin", "Softplus", "Softsign", "Sqrt", "Square", "Subtract", "Tanh"),
        *("TrueDivide", "Celu", "SoftShrink", "HardShrink", "TanhShrink", "Threshold"),
    }
)
"""Operations of `keras.ops` that make each value of values at the same place, and of numbers."""


def is_elementwise(activation: Any) -> bool:
    """Whether a function is known to treat each value by itself."""
    if activation is None:
        return True
    # A user's function of the same name may do anything.
    package = str(getattr(activation, "__module__", "")).partition(".")[0]
    if package in ("keras", "tensorflow", "torch"):
        return getattr(activation, "__name__", "") in ELEMENTWISE
    return isinstance(activation, FunctionType) and _is_made_of_elementwise(activation)


def _is_made_of_elementwise(function: FunctionType) -> bool:
    """Whether all that a function does, followed on a symbolic tensor, is known to be elementwise.

    >>> _is_made_of_elementwise(lambda x: keras.ops.relu(x) ** 2)
    True
    >>> _is_made_of_elementwise(lambda x: x / keras.ops.sum(x))
    False
    """
    # With two numbers of channels: `x / x.shape[-1]` is elementwise, and yet depends on them.
    steps = _steps(function, 5)
    return steps is not None and steps == _steps(function, 7)


def _steps(function: FunctionType, channels: int) -> list[Any] | None:
    """Return the operations of a function with the numbers in them; None if one may mix values."""
    start = keras.KerasTensor((None, 3, channels))
    try:
        end = function(start)
    except Exception:  # whatever a function of the user's raises
        return None
    waiting, steps = [end], []
    while waiting:
        tensor = waiting.pop()
        if tensor is start:
            continue
        history = getattr(tensor, "_keras_history", None)
        if history is None or tensor.shape != start.shape:
            return None
        op = history.operation
        node = op._inbound_nodes[history.node_index]
        given = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        numbers = [each for each in given if not isinstance(each, keras.KerasTensor)]
        known = type(op).__module__.partition(".")[0] == "keras" and type(op).__name__ in OPERATIONS
        if not known or not all(isinstance(each, int | float | None) for each in numbers):
            return None
        settings = {k: v for k, v in vars(op).items() if isinstance(v, int | float)}
        steps.append((type(op), numbers, settings))
        waiting += node.input_tensors
    return steps

"""Every operator that a certificate may name, and what numpy makes of it.

Nothing here decides whether a step follows: the rules in `checker` do. The names are those of
torch where torch has one.
"""

from collections.abc import Callable, Iterable, Sequence
from math import erf
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

OPERATORS = {
    "same": {"call"},
    "fill": {"value", "shape"},
    "tensor": {"name", "fold"},
    "move": {"moves"},
    "pointwise": {"function", "arguments"},
    "along": {"function", "axes", "size", "over", "told"},
    "matmul": set[str](),
    "conv": {"stride", "padding", "dilation", "output_padding", "size", "transposed", "groups"},
}
"""Each operator, and all that it may be told."""


# -- moves -----------------------------------------------------------------------------------------


def overwritten(array: Array, by: Array, where: Iterable[Sequence[Any]]) -> Array:
    """An array with other numbers at the places that some moves lead to."""
    array = array.copy()
    view = moved([array], where)
    if not np.shares_memory(view, array):
        raise ValueError("these moves lead to no place")
    view[...] = by
    return array


def windows(array: Array, axis: int, size: int, step: int) -> Array:
    """So many places of an axis together, again and again, along a new last axis."""
    view = np.lib.stride_tricks.sliding_window_view(array, size, axis)
    return view[(slice(None),) * axis + (slice(None, None, step),)]


MOVES: dict[str, Callable[..., Array]] = {
    "cat": lambda *told: np.concatenate(told[:-1], told[-1]),
    "slice": lambda array, axis, *ends: array[(slice(None),) * axis + (slice(*ends),)],
    "flip": np.flip,
    "roll": lambda array, axis, shift: np.roll(array, shift, axis),
    "reshape": np.reshape,
    "permute": np.transpose,
    "expand": np.broadcast_to,
    "repeat": np.tile,
    "window": windows,
    "diagonal": np.diagonal,
    "write": overwritten,
}
"""Operators that only move numbers, as functions of arrays of anything."""

AXIAL = {"cat", "slice", "flip", "roll"}
"""Those that are told an axis first, and treat all places along other axes alike."""


def moved(arrays: Sequence[Array], moves: Iterable[Sequence[Any]]) -> Array:
    """Arrays after some moves, the first of which joins them if they are several."""
    for name, *told in moves:
        arrays = [MOVES[name](*arrays, *told)]
    (array,) = arrays
    return array


# -- functions of single numbers -------------------------------------------------------------------

_erf = np.vectorize(erf, [float])

# fmt: off
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y, alpha=1: x + alpha * y, "sub": lambda x, y, alpha=1: x - alpha * y,
    "rsub": lambda x, y, alpha=1: y - alpha * x, "mul": np.multiply,
    "div": np.divide, "where": np.where,
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "square": np.square, "pow": np.power,
    "sqrt": np.sqrt, "rsqrt": lambda x: x**-0.5, "reciprocal": np.reciprocal,
    "exp": np.exp, "log1p": np.log1p, "tanh": np.tanh, "sin": np.sin, "erf": _erf,
    "maximum": np.maximum, "minimum": np.minimum, "clamp": np.clip,
    "relu": lambda x: np.maximum(x, 0), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)), "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "gelu": lambda x, how="none": 0.5 * x * (1 + (
        _erf(x / 2**0.5) if how == "none"
        else np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "prelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "leaky_relu": lambda x, slope=0.01: np.where(x > 0, x, slope * x),
    "elu": lambda x, a=1, s=1, i=1: s * np.where(x > 0, x, a * np.expm1(np.minimum(x * i, 0))),
    "softplus": lambda x, b=1, t=20: np.where(
        x * b > t, x, np.log1p(np.exp(np.minimum(x * b, t))) / b),
    "cast": lambda x, kind: x if "float" in kind else np.where(x == 0, 0, np.nan),
}
"""Functions of single numbers that are computed where a number is known."""

POINTWISE = FUNCTIONS.keys() | {
    "log", "cos", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not",
    "logical_xor", "bitwise_and", "bitwise_or", "bitwise_not", "bitwise_xor", "floor", "ceil",
    "trunc", "round", "sgn", "frac", "isnan", "isinf", "isfinite", "expm1", "log2", "log10",
    "exp2", "floor_divide", "remainder", "fmod", "atan2", "atan", "sinh", "cosh", "tan", "asin",
    "acos", "erfinv", "log_sigmoid", "celu", "selu", "logit", "lerp", "addcmul", "addcdiv",
    "nan_to_num", "threshold", "hardshrink", "softshrink", "heaviside", "polar",
}
"""These, and those whose results are not looked into."""

STOPS = {"relu", "clamp", "hardsigmoid", "hardswish", "maximum", "minimum", "cast"}
"""Functions that give an exact zero also where no operand is one, whatever rounding does."""

# -- functions of rows -----------------------------------------------------------------------------

EVEN = {
    "mean", "amax", "amin", "max", "min", "median", "max_pool", "adaptive_avg_pool", "nearest",
    "adaptive_max_pool", "nearest_exact", "linear", "bilinear", "bicubic", "trilinear",
    "bicubic_aa", "bilinear_aa", "reflection_pad", "replication_pad", "gather", "scatter",
}
"""Functions of rows that make a row of one number of a row of that number."""

OF_ZEROS = EVEN | {
    "sum", "cumsum", "cumprod", "var", "std", "norm", "avg_pool", "prod", "tril", "triu",
    "normalise", "rms_normalise", "scatter_add", "grid_sample", "fft",
}
"""These, and those that make zeros of a row of zeros."""

ROWS = OF_ZEROS | {
    "var_mean", "argmax", "argmin", "any", "all", "logsumexp", "softmax", "log_softmax", "sort",
    "argsort", "topk",
}
"""These, and those of which no result is known."""

OVER = {"mean", "var", "var_mean", "normalise", "rms_normalise"}
"""Functions of rows that may be meant to run over the indices that are left, in both models."""
# fmt: on

"""Check a certificate: that a small model computes what a masked one does, for every input.

A certificate is a list of steps, each an operator of a small vocabulary between numbered values.
They are the program of the original and of the small model at once: what an operator is told
otherwise in the small one stands beside. The claim about each value is that the small model's is
the original's at the indices that are *kept*. This file derives that again, step by step, from
the tensors in the two files, and names the first step that does not follow. It needs only numpy.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from math import erf, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Kept = tuple[Array, ...]
Told = dict[str, Any]


class Rejected(Exception):  # noqa: N818
    """A step that does not follow, or a file that is not the one that was certified."""


class Value(NamedTuple):
    """What holds of a value for every input: its shape in the original, and which indices are kept.

    `known` broadcasts to the shape: a number where it is the same for every input, NaN elsewhere.
    `folded` is the small model's bias where constants were added to it, so that it is no slice.
    """

    shape: tuple[int, ...]
    kept: Kept
    known: Array
    folded: Array | None = None

    def cut(self) -> list[int]:
        return [axis for axis, kept in enumerate(self.kept) if len(kept) != self.shape[axis]]


class Verdict(NamedTuple):
    """An accepted certificate: its steps, the longest sum, and what it takes for granted."""

    steps: int
    longest: int
    assumptions: list[str]


def need(holds: Any, why: str) -> None:
    if not holds:
        raise Rejected(why)


def value_of(shape: Sequence[int], kept: Iterable[Array], known: Any = np.nan) -> Value:
    """A value; what is known has length one along axes along which it does not differ."""
    known = np.asarray(known)
    known = known.reshape((1,) * (len(shape) - known.ndim) + known.shape)
    for axis in range(known.ndim):
        first = known.take([0], axis) if known.shape[axis] > 1 else known
        if known.shape[axis] > 1 and np.array_equal(
            np.broadcast_to(first, known.shape), known, True
        ):
            known = first
    return Value(tuple(shape), tuple(kept), known)


def indices(ranges: Sequence[Sequence[int]], size: int) -> Array:
    """`[[0, 2], [5, 6]]` is 0, 1, 5: strictly rising, and within the axis."""
    found = np.concatenate([np.arange(0), *(np.arange(start, stop) for start, stop in ranges)])
    need((np.diff(found) > 0).all(), "indices do not rise")
    need(not len(found) or (found[0] >= 0 and found[-1] < size), "an index lies outside its axis")
    return found


def whole(shape: Sequence[int]) -> Kept:
    return tuple(np.arange(size) for size in shape)


def uncut(value: Value, axes: Iterable[int], why: str) -> None:
    cut = sorted({axis % max(len(value.shape), 1) for axis in axes} & {*value.cut()})
    need(not cut, f"{why}, but indices were removed along axis {cut}")


def same(one: Kept, other: Kept) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def meet(*operands: Value) -> tuple[tuple[int, ...], Kept]:
    """Shape and kept indices where operands broadcast: what meets must be kept alike."""
    shape, kept = np.broadcast_shapes(*(each.shape for each in operands)), []
    for axis in range(-len(shape), 0):
        wide = [v.kept[axis] for v in operands if len(v.shape) >= -axis and v.shape[axis] != 1]
        need(all(np.array_equal(each, wide[0]) for each in wide), f"operands differ along {axis}")
        kept.append(wide[0] if wide else np.arange(1))
    return shape, tuple(kept)


def at(known: Array, kept: Kept) -> Array:
    """What is known at some indices."""
    for axis, each in enumerate(kept):
        known = known.take(each, axis) if known.shape[axis] != 1 else known
    return known


def along_axis(known: Array, axis: int, size: int) -> Array:
    return np.repeat(known, size, axis) if known.shape[axis] != size else known


def even(known: Array, axes: Iterable[int]) -> Array:
    """The number of each row that is the same number throughout."""
    axes = tuple(axes)
    first = known
    for axis in axes:
        first = first.take([0], axis)
    return np.where((known == first).all(axes, keepdims=True), first, np.nan)


# -- the vocabulary --------------------------------------------------------------------------------

# Operators that only move numbers, as functions of any array.
# fmt: off
MOVES: dict[str, Callable[..., Array]] = {
    "reshape": lambda a, shape: a.reshape(shape), "permute": lambda a, axes: a.transpose(axes),
    "expand": lambda a, shape: np.broadcast_to(a, shape), "flip": lambda a, axes: np.flip(a, axes),
    "slice": lambda a, axis, *ends: a[(slice(None),) * axis + (slice(*ends),)],
    "roll": lambda a, shifts, axes: np.roll(a, shifts, axes), "repeat": np.tile,
    "window": lambda a, axis, size, step: np.lib.stride_tricks.sliding_window_view(a, size, axis)[
        (slice(None),) * axis + (slice(None, None, step),)],
    "diagonal": lambda a, offset, one, two: a.diagonal(offset, one, two),
}
# Functions of single numbers that this file can compute, and others, that it need not.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y, alpha=1: x + alpha * y, "sub": lambda x, y, alpha=1: x - alpha * y,
    "rsub": lambda x, y, alpha=1: y - alpha * x, "neg": np.negative, "abs": np.abs, "exp": np.exp,
    "sqrt": np.sqrt, "square": np.square, "pow": np.power, "tanh": np.tanh, "sin": np.sin,
    "maximum": np.maximum, "minimum": np.minimum, "relu": lambda x: np.maximum(x, 0),
    "rsqrt": lambda x: x**-0.5, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)), "clamp": np.clip,
    "gelu": lambda x, how="none": 0.5 * x * (1 + (np.vectorize(erf, [float])(x / 2**0.5)
        if how == "none" else np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1), "prelu": lambda x, s: np.where(x > 0, x, s * x),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "leaky_relu": lambda x, slope=0.01: np.where(x > 0, x, slope * x),
    "elu": lambda x, a=1, s=1, i=1: s * np.where(x > 0, x, a * np.expm1(np.minimum(x * i, 0))),
    "softplus": lambda x, b=1, t=20: np.where(x * b > t, x, np.log1p(np.exp(np.minimum(x * b, t))) / b),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))), "sign": np.sign, "log1p": np.log1p,
    "cast": lambda x, kind: x if "float" in kind else np.where(x == 0, 0, np.nan), "erf": np.vectorize(erf, [float]),
}
POINTWISE = {*FUNCTIONS, *(
    "mul div where batch_norm log cos reciprocal eq ne lt le gt ge logical_and logical_or logical_not "
    "logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor floor ceil trunc sgn frac isnan isinf "
    "isfinite expm1 log2 log10 exp2 floor_divide remainder fmod atan2 atan sinh cosh tan asin acos "
    "erfinv log_sigmoid celu selu logit lerp addcmul addcdiv nan_to_num threshold hardshrink "
    "softshrink heaviside").split()}
# What gives an exact zero also where no operand is one, whatever rounding does.
EXACT = set("relu clamp hardsigmoid hardswish maximum minimum cast".split())
# Functions of rows by what becomes of a row: one number, a row of the same length, another length.
REDUCE = set("sum mean amax amin max min var std var_mean prod argmax argmin any all norm "
             "logsumexp median".split())
KEEP = set("softmax log_softmax cumsum cumprod normalise rms_normalise sort argsort tril triu".split())
RESIZE = set("max_pool avg_pool adaptive_avg_pool adaptive_max_pool nearest nearest_exact linear bilinear "
             "bicubic trilinear bicubic_aa bilinear_aa topk reflection_pad replication_pad".split())
# Of a row of one number they give that number; of a row of zeros, the others too give zeros.
EVEN = (REDUCE & set("mean amax amin max min median".split())) | (RESIZE - set("avg_pool topk".split()))
OF_ZEROS = EVEN | set("sum cumsum cumprod var std norm avg_pool prod tril triu normalise rms_normalise".split())
# Functions that may be defined to run over the indices that are left, in the original too.
OVER = set("mean var var_mean normalise rms_normalise".split())
# fmt: on


def compute(function: str, told: Sequence[Any]) -> Array:
    """The results that are the same for every input, and NaN elsewhere."""
    if function == "batch_norm":
        value, scale, shift, mean, var, eps = told
        apart = compute("sub", [value, mean]) / np.sqrt(np.asarray(var, float) + eps)
        return compute("add", [compute("mul", [apart, scale]), shift])
    given = [np.asarray(each, float) if isinstance(each, np.ndarray) else each for each in told]
    operands = np.broadcast_arrays(*(each for each in given if isinstance(each, np.ndarray)))
    unknown = np.logical_or.reduce([np.isnan(each) for each in operands])
    if function == "mul":
        zero = np.asarray(given[0] == 0) | np.asarray(given[1] == 0)
        return np.where(zero, 0.0, np.multiply(*given) + np.zeros(unknown.shape))
    if function == "div":
        return np.where(given[0] == 0, 0.0, np.divide(*given) + np.zeros(unknown.shape))
    if function == "where":
        chosen = np.where(np.isnan(given[0]), np.nan, np.where(given[0] != 0, *given[1:]))
        return np.where(np.asarray(given[1]) == given[2], given[1], chosen)
    if function not in FUNCTIONS or unknown.all():
        return np.full(unknown.shape, np.nan)
    result = np.asarray(FUNCTIONS[function](*given), float) + np.zeros(unknown.shape)
    # Rounding may make a zero of what is none, and a sign of what is none.
    tiny = np.logical_or.reduce([(each != 0) & (np.abs(each) < 1e-6) for each in operands])
    zeros = np.logical_and.reduce([each == 0 for each in operands])
    doubtful = (result == 0) & (tiny if function in EXACT else ~zeros)
    return np.where(unknown | doubtful, np.nan, result)


def product(left: Array, right: Array) -> Array:
    """A product of matrices; a sum is known if each of its terms is, or has a factor of zero."""
    unknown = [np.isnan(each).astype(np.float32) for each in (left, right)]
    nonzero = [(each != 0).astype(np.float32) for each in (left, right)]
    result = np.nan_to_num(left).astype(float) @ np.nan_to_num(right).astype(float)
    terms = nonzero[0] @ nonzero[1]
    doubtful = unknown[0] @ nonzero[1] + nonzero[0] @ unknown[1] + (terms * (result == 0))
    return np.where(doubtful > 0, np.nan, result)


class Checker:
    """The steps, one after the other; `values` is all that has been derived so far.

    Each rule is given the values that are read, what the operator is told in the original and in
    the small model, and what is claimed of the results; it returns what follows.
    """

    def __init__(self, original: Told, small: Told) -> None:
        self.files, self.values = (original, small), dict[int, Value]()
        self.longest, self.notes = 0, set[str]()

    def derive(self, step: Told, claimed: Sequence[Value]) -> Sequence[Value]:
        """What follows of the results of one step."""
        operator, told = step["op"], dict(step.get("with", {}))
        small, values = told | step.get("small", {}), [self.values[at] for at in step["in"]]
        need(operator in OPERATORS, f"there is no operator {operator!r} in the vocabulary")
        need(set(told) <= {*OPERATORS[operator].split()}, "the operator cannot be told that")
        need(set(small) == set(told), "the small model is told something of its own")
        if operator not in ("fill", "move", "conv"):
            need(told == small, "the small model tells the operator something else")
        folded = [at for at, value in enumerate(values) if value.folded is not None]
        allowed = [2] if operator in ("conv", "matmul") else []
        need(folded in ([], allowed), "a bias that constants were added to is used otherwise")
        with np.errstate(all="ignore"):
            made: Sequence[Value] = getattr(self, operator)(values, told, small, claimed)
        return made

    def run(self, step: Told, claims: Sequence[Told]) -> None:
        """Derive the results of a step, and hold the claims to them."""
        claimed = [claimed_value(claims[at]) for at in step["out"]]
        made = self.derive(step, claimed)
        need(len(made) >= len(claimed), "the operator has fewer results")
        for number, value, said in zip(step["out"], made, claimed, strict=False):
            need(number not in self.values, f"value {number} is made twice")
            need(value.shape == said.shape, f"the result is {value.shape}, not {said.shape}")
            need(same(value.kept, said.kept), f"value {number} keeps other indices than is claimed")
            for what in ("zero", "constant"):
                for axis, ranges in claims[number].get(what, {}).items():
                    size, which = value.shape[int(axis)], int(axis)
                    there = along_axis(value.known, which, size).take(indices(ranges, size), which)
                    holds = (there == 0 if what == "zero" else ~np.isnan(there)).all()
                    need(holds, f"indices {ranges} of axis {axis} are not known to be {what}")
            self.values[number] = value

    # -- where values come from --------------------------------------------------------------------

    def input(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """An input, or what the model holds elsewhere: whole, and the same in both models."""
        return [value_of(each.shape, whole(each.shape)) for each in claimed]

    def fill(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """A tensor of one number: so is each part of it."""
        need(told["value"] == small["value"], "it is filled with another number")
        need(same(whole(small["shape"]), whole([*map(len, claimed[0].kept)])), "its size differs")
        return [value_of(told["shape"], claimed[0].kept, float(told["value"]))]

    def tensor(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """A parameter or buffer: in SMALL it is the kept part of that in ORIGINAL, to the bit."""
        name, said, gained = told["name"], claimed[0], told.get("fold") == "gained"
        need(name in self.files[1], f"SMALL has no tensor {name!r}")
        need(gained != (name in self.files[0]), f"ORIGINAL and the certificate differ on {name!r}")
        here = self.files[1][name][1]
        there = np.zeros(said.shape, here.dtype) if gained else self.files[0][name][1]
        need(there.shape == said.shape, f"{name!r} has shape {there.shape} in ORIGINAL")
        need(here.shape == tuple(map(len, said.kept)), f"{name!r} has shape {here.shape} in SMALL")
        need(here.dtype == there.dtype, f"{name!r} is of another type in SMALL")
        finite = there.dtype.kind == "f" and bool(np.isfinite(there).all())
        value = Value(said.shape, said.kept, there if finite else value_of(said.shape, ()).known)
        if "fold" in told:
            need(finite and there.ndim == 1, f"{name!r} is no bias that constants can be added to")
            return [value._replace(folded=here)]
        need(
            finite or not value.cut() or there.dtype.kind != "f", f"{name!r} is cut, and not finite"
        )
        part = there[np.ix_(*said.kept)] if value.cut() else there
        need(np.array_equal(part, here), f"{name!r} in SMALL is not the kept part of ORIGINAL's")
        return [value]

    def same(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Any function, told the same and given the same, gives the same."""
        for value in values:
            uncut(
                value, range(len(value.shape)), "the operator has no rule but that of equal inputs"
            )
        return self.input(values, told, small, claimed)

    # -- numbers that move -------------------------------------------------------------------------

    def move(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Both models put the same numbers at the same places, as their places of origin show."""
        (value,), (said,) = values, claimed
        places = np.arange(prod(value.shape)).reshape(value.shape)
        there, known = moved(places, told["moves"]), np.full((1,) * len(said.shape), np.nan)
        need(there.shape == said.shape, f"the result has shape {there.shape}, not {said.shape}")
        if told != small or value.cut() or said.cut():
            here = moved(places[np.ix_(*value.kept)], small["moves"])
            need(
                np.array_equal(there[np.ix_(*said.kept)], here),
                "the small model moves other numbers",
            )
        if not np.isnan(value.known).all():
            known = moved(np.broadcast_to(value.known, value.shape), told["moves"])
        return [value_of(there.shape, said.kept, known)]

    def cat(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Pieces one behind the other: what is kept of each is kept of the whole."""
        axis, kept, starts = (
            told["axis"],
            list(values[0].kept),
            np.cumsum([0, *(v.shape[told["axis"]] for v in values)]),
        )
        for value in values:
            others = [
                np.array_equal(k, f)
                for a, (k, f) in enumerate(zip(value.kept, values[0].kept, strict=True))
                if a != axis
            ]
            need(all(others), "the pieces keep different indices")
        kept[axis] = np.concatenate(
            [v.kept[axis] + start for v, start in zip(values, starts, strict=False)]
        )
        shape = tuple(
            int(starts[-1]) if a == axis else size for a, size in enumerate(values[0].shape)
        )
        pieces = [along_axis(value.known, axis, value.shape[axis]) for value in values]
        sizes = np.broadcast_shapes(*(np.delete(piece.shape, axis) for piece in pieces))
        wide = [np.broadcast_to(p, (*sizes[:axis], p.shape[axis], *sizes[axis:])) for p in pieces]
        return [value_of(shape, kept, np.concatenate(wide, axis))]

    def lookup(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Rows by number: rows and numbers are whole, the other axes are what they are."""
        (table, places), axis = values, told["axis"]
        uncut(table, [axis], "rows are looked up by number")
        uncut(places, range(len(places.shape)), "numbers of rows are read")
        shape = (*table.shape[:axis], *places.shape, *table.shape[axis + 1 :])
        kept = (*table.kept[:axis], *places.kept, *table.kept[axis + 1 :])
        known, ones = even(table.known, [axis]), (1,) * len(places.shape)
        known = known.reshape(*known.shape[:axis], *ones, *known.shape[axis + 1 :])
        return [value_of(shape, kept, known)]

    # -- functions of numbers and of rows ----------------------------------------------------------

    def pointwise(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Each number is made of those at its place, so what meets must be kept alike."""
        need(
            told["function"] in POINTWISE, f"{told['function']!r} is no function of single numbers"
        )
        axes, ndim = told.get("axes") or [None] * len(values), len(claimed[0].shape)
        operands = [laid(v, axis, ndim) for v, axis in zip(values, axes, strict=True)]
        special = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}
        given = [
            operands[a["value"]].known if isinstance(a, dict) else special.get(a, a)
            for a in told["arguments"]
        ]
        return [value_of(*meet(*operands), compute(told["function"], given))]

    def along(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """A function of rows along some axes: which other rows there are makes no difference."""
        (value,), function, axes, over = values, told["function"], told["axes"], told.get("over")
        need(function in REDUCE | KEEP | RESIZE, f"{function!r} is no function of rows")
        need(len({*axes}) == len(axes) and {*axes} <= {*range(len(value.shape))}, "no such axes")
        lengths = {a: 1 if function in REDUCE else value.shape[a] for a in axes}
        lengths |= dict(zip(axes, told["size"], strict=True)) if function in RESIZE else {}
        kept, known = list(value.kept), value.known
        if over is not None:
            need(function in OVER, f"{function} cannot run over some of the indices only")
            meant = [indices(over.get(str(a), [[0, value.shape[a]]]), value.shape[a]) for a in axes]
            need(
                same(tuple(meant), tuple(kept[a] for a in axes)),
                "it runs over other indices than are left",
            )
            self.notes.add(
                f"In both models the {function} runs over the indices that are left (axis: {over}), and is zero elsewhere."
            )
            known = at(
                known,
                tuple(kept[a] if a in axes else np.arange(n) for a, n in enumerate(known.shape)),
            )
        elif function in ("sum", "norm"):
            for axis in {*axes} & {*value.cut()}:
                others = tuple(
                    np.arange(n) if a == axis else k
                    for a, (k, n) in enumerate(zip(kept, value.shape, strict=True))
                )
                lost = along_axis(at(known, others), axis, value.shape[axis]).take(
                    removed(value, axis), axis
                )
                need((lost == 0).all(), f"a sum loses indices of axis {axis} that are not zero")
        else:
            uncut(value, axes, f"{function} runs over all indices")
        row = even(known, axes) if function in OF_ZEROS else np.full((1,) * known.ndim, np.nan)
        row = row if function in EVEN else np.where(row == 0, 0.0, np.nan)
        for axis in axes if over and function in KEEP else ():  # elsewhere zero, by definition
            row = along_axis(row, axis, value.shape[axis]).copy()
            row[(slice(None),) * axis + (removed(value, axis),)] = 0
        for axis in axes:
            kept[axis] = kept[axis] if over and function in KEEP else np.arange(lengths[axis])
        shape = tuple(lengths.get(a, size) for a, size in enumerate(value.shape))
        if told.get("keepdim", True) is False:
            stay = [a for a in range(len(shape)) if a not in axes]
            shape, kept, row = (
                tuple(shape[a] for a in stay),
                [kept[a] for a in stay],
                row.squeeze(tuple(axes)),
            )
        return [value_of(shape, kept, row), value_of(shape, kept)]

    # -- sums of products --------------------------------------------------------------------------

    def matmul(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Rows times columns: each product that goes has a factor of zero, or is in the bias."""
        left, right, *bias = values
        need(left.shape[-1] == right.shape[-2], "rows and columns are not equally long")
        need(
            np.array_equal(left.kept[-1], right.kept[-2]), "rows and columns keep different indices"
        )
        lead, kept = meet(*(Value(v.shape[:-2], v.kept[:-2], v.known) for v in (left, right)))
        shape, kept = (
            (*lead, left.shape[-2], right.shape[-1]),
            (*kept, left.kept[-2], right.kept[-1]),
        )
        rows = along_axis(left.known, len(left.shape) - 1, left.shape[-1])
        columns = along_axis(right.known, len(right.shape) - 2, left.shape[-1])
        gone, self.longest = removed(left, -1), max(self.longest, len(left.kept[-1]))
        lost = product(
            at(rows, (*left.kept[:-1], gone)), at(columns, (*right.kept[:-2], gone, right.kept[-1]))
        )
        self.settle(lost, bias[0] if bias else None)
        known = product(rows, columns)
        if bias:
            met = meet(Value(shape, kept, known), bias[0])
            need(met[0] == shape and same(met[1], kept), "the bias does not fit")
            known = known + bias[0].known
        return [value_of(shape, kept, known)]

    def settle(self, lost: Array, bias: Value | None) -> None:
        """What removed products add up to is nothing, or is in the small model's bias."""
        need(not np.isnan(lost).any(), "a sum runs over removed indices that are not zero")
        if bias is None or bias.folded is None:
            need((lost == 0).all(), "a sum runs over removed indices that hold a constant")
            return
        need(lost.size in (1, lost.shape[-1]), "a constant is not the same everywhere")
        due = at(bias.known, bias.kept) + lost.reshape(-1)
        size = np.abs(due).max(initial=0) + np.abs(lost).max(initial=0)
        apart = np.abs(bias.folded - due).max(initial=0)
        need(
            apart <= 256 * np.finfo(bias.folded.dtype).eps * size, f"the bias is off by {apart:.1e}"
        )

    def conv(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Sums of products over the channels of a group, and over a window of places."""
        value, weight, *bias = values
        need(
            told | {"groups": 0} == small | {"groups": 0}, "the small model is told something else"
        )
        uncut(value, range(2, len(value.shape)), "a window slides along it")
        uncut(weight, range(2, len(weight.shape)), "a window is whole")
        groups, fewer, (first, second) = told["groups"], small["groups"], weight.kept[:2]
        kernel = np.broadcast_to(weight.known, weight.shape).reshape(*weight.shape[:2], -1)
        width, made = value.shape[1] // groups, weight.shape[0]
        need(width * groups == value.shape[1], "the channels do not fill their groups")
        if told["transposed"]:  # (inputs, outputs of a group) as (outputs, inputs of a group)
            need(weight.shape[0] == value.shape[1], "the weight has other channels")
            kernel = kernel.reshape(groups, width, *kernel.shape[1:]).swapaxes(1, 2)
            kernel, made = kernel.reshape(-1, *kernel.shape[2:]), weight.shape[1] * groups
            place = (first.reshape(fewer, -1)[:, :1] // width, second)
            inner, first = (
                first.reshape(fewer, -1)[0] % width,
                (place[0] * weight.shape[1] + second).ravel(),
            )
            need(
                np.array_equal((place[0] * width + inner).ravel(), weight.kept[0]),
                "groups are cut unevenly",
            )
        else:
            need(weight.shape[1] == width and made % groups == 0, "the weight has other channels")
            inner = second
        group = np.arange(made) // (made // groups)
        need(
            len(first) % fewer == 0 and len(value.kept[1]) == fewer * len(inner),
            "the small groups differ",
        )
        read = np.repeat(value.kept[1].reshape(fewer, -1), len(first) // fewer, 0)
        need(np.array_equal(read, group[first][:, None] * width + inner), "other channels are read")
        self.longest = max(self.longest, len(inner) * kernel.shape[2])
        channel = np.broadcast_to(
            even(value.known, [0, *range(2, value.known.ndim)]).ravel(), (value.shape[1],)
        )
        channel = channel[group[:, None] * width + np.arange(width)]
        term = np.where(
            (kernel == 0).all(2) | (channel == 0), 0.0, kernel.sum(2, dtype=float) * channel
        )
        if any(told["padding"]) or told["transposed"]:
            term[term != 0] = np.nan  # at the edge a constant counts less often
        gone = np.setdiff1d(np.arange(width), inner)
        self.settle(term[np.ix_(first, gone)].sum(1)[None], bias[0] if bias else None)
        known = term.sum(1)
        if bias:
            need(
                bias[0].shape == (made,) and np.array_equal(bias[0].kept[0], first),
                "the bias does not fit",
            )
            known = known + bias[0].known
        shape = (value.shape[0], made, *told["size"])
        return [
            value_of(
                shape,
                (value.kept[0], first, *whole(told["size"])),
                known.reshape(1, -1, *[1] * len(told["size"])),
            )
        ]

    def attention(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """softmax(scale * query @ key.T + mask) @ value: heads by themselves, and sums."""
        query, key, value, *mask = values
        for each in (query, key, value):
            uncut(each, [-2], "each query is compared with all keys")
        turned = [(*each[:-2], each[-1], each[-2]) for each in (key.shape, key.kept)]
        scores = self.matmul(
            [query, value_of(turned[0], turned[1], key.known.swapaxes(-1, -2))], {}, {}, ()
        )[0]
        if mask:
            met = meet(scores, mask[0])
            need(met[0] == scores.shape and same(met[1], scores.kept), "the mask does not fit")
        need(key.shape[-2] == value.shape[-2], "there are more keys than values")
        return self.matmul(
            [scores._replace(known=value_of(scores.shape, ()).known), value], {}, {}, ()
        )


# Each operator, and all that it may be told.
OPERATORS = {
    "input": "",
    "fill": "value shape",
    "tensor": "name fold",
    "same": "call",
    "move": "moves",
    "cat": "axis",
    "lookup": "axis",
    "pointwise": "function arguments axes",
    "along": "function axes keepdim over size told window stride padding dilation ceil divisor "
    "count_include_pad eps correction unbiased p diagonal largest sorted descending stable",
    "matmul": "",
    "conv": "stride padding dilation output_padding size transposed groups",
    "attention": "scale causal",
}


def moved(array: Array, moves: Sequence[Sequence[Any]]) -> Array:
    for name, *told in moves:
        array = MOVES[name](array, *told)
    return array


def removed(value: Value, axis: int) -> Array:
    return np.setdiff1d(np.arange(value.shape[axis]), value.kept[axis])


def laid(value: Value, axis: int | None, ndim: int) -> Value:
    """A vector laid along one axis, such as the scales of channels."""
    if axis is None:
        return value
    shape = [value.shape[0] if a == axis else 1 for a in range(ndim)]
    kept = [value.kept[0] if a == axis else np.arange(1) for a in range(ndim)]
    return value_of(shape, kept, np.broadcast_to(value.known, value.shape).reshape(shape))


def claimed_value(claim: Told) -> Value:
    shape, kept = tuple(claim["shape"]), list(whole(claim["shape"]))
    for axis, ranges in claim.get("kept", {}).items():
        kept[int(axis)] = indices(ranges, shape[int(axis)])
    return value_of(shape, kept)


def read_tensors(path: str | Path) -> dict[str, tuple[str, Array]]:
    """`{name: (sha256 of type, shape and bytes, numbers)}` of a safetensors file."""
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int(data[:8].view("<u8")[0])
    tensors = {}
    for name, entry in json.loads(bytes(data[8:start])).items():
        if name != "__metadata__":
            kind, shape, ends = entry["dtype"], entry["shape"], entry["data_offsets"]
            raw = np.asarray(data[start + ends[0] : start + ends[1]])
            digest = hashlib.sha256(f"{kind}{shape}".encode())
            digest.update(raw.data)
            if kind == "BF16":
                numbers = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
            else:
                code = "?" if kind == "BOOL" else f"<{kind[0].lower()}{int(kind[1:]) // 8}"
                numbers = np.frombuffer(raw, code)
            tensors[name] = digest.hexdigest(), numbers.reshape(shape)
    return tensors


def check(original: str | Path, small: str | Path, certificate: str | Path) -> Verdict:
    """Check a certificate against the two files that it is about.

    Raises:
        Rejected: It does not prove that the two compute the same; the message names the step.
    """
    try:
        told = json.loads(Path(certificate).read_text())
        files = read_tensors(original), read_tensors(small)
        return check_read(*files, told)
    except (KeyError, TypeError, ValueError, OSError, IndexError) as error:
        raise Rejected(f"A file cannot be read: {type(error).__name__}: {error}") from error


def check_read(original: Told, small: Told, told: Told) -> Verdict:
    """The same with what the files hold."""
    need((told["format"], told["version"]) == ("prune-certificate", 1), "this is no certificate")
    for which, tensors in (("original", original), ("small", small)):
        for name, digest in told[which].items():
            need(name in tensors, f"{which.upper()} has no tensor {name!r}")
            need(tensors[name][0] == digest, f"{which.upper()} is another file: {name!r} differs")
    checker = Checker(original, small)
    for number, step in enumerate(told["steps"]):
        try:
            if step["op"] == "tensor":
                name = step["with"]["name"]
                gained = step["with"].get("fold") == "gained"
                need(
                    name in told["small"] and gained != (name in told["original"]),
                    f"{name!r} has no hash",
                )
            checker.run(step, told["values"])
        except (Rejected, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            why = error if isinstance(error, Rejected) else f"malformed: {error!r}"
            raise Rejected(
                f"Step {number}, {step['op']} ({step.get('from', '')}): {why}."
            ) from error
    need(told["outputs"], "the certificate names no output")
    for output in told["outputs"]:
        need(output in checker.values, f"output {output} is made by no step")
        uncut(
            checker.values[output],
            range(len(checker.values[output].shape)),
            f"value {output} is an output",
        )
    return Verdict(
        len(told["steps"]), checker.longest, [*told["assumptions"], *sorted(checker.notes)]
    )

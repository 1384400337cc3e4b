"""Check a certificate: that a small model computes what a masked one does, for every input.

A certificate is a list of steps, each an operator of a small vocabulary between numbered values.
The steps are at once the program of the original and of the small model: what an operator is told
otherwise in the small one stands beside. Of each value it is claimed that the small model's is
the original's at the indices that are *kept*. This file derives that again, step by step, from
the tensors in the two files, and names the first step that does not follow. It needs numpy only.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from math import erf, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Rejected", "Value", "Verdict", "check", "derive", "read_tensors"]

Array = np.ndarray[Any, Any]


class Rejected(Exception):  # noqa: N818
    """A step that does not follow, or a file that is not the one that was certified."""


class Value(NamedTuple):
    """What is known of a value, for every input.

    `known` broadcasts to the shape in the original and holds a number where it is the same for
    every input, and NaN where it is not; `None` if nothing is known. `folded` are the small
    model's numbers of a bias that has taken up constants, of which no slice can be compared.
    """

    shape: tuple[int, ...]
    kept: tuple[Array, ...]
    known: Array | None = None
    folded: Array | None = None

    def small(self) -> tuple[int, ...]:
        return tuple(map(len, self.kept))

    def touched(self) -> list[int]:
        return [a for a, k in enumerate(self.kept) if len(k) != self.shape[a]]

    def numbers(self) -> Array:
        return np.full((1,) * len(self.shape), np.nan) if self.known is None else self.known


class Verdict(NamedTuple):
    """An accepted certificate: how many steps, the longest sum, and what it takes for granted."""

    steps: int
    longest: int
    assumptions: list[str]
    derived: dict[int, Value]


def read_tensors(path: str | Path) -> dict[str, tuple[str, Array]]:
    """Read `{name: (sha256 of type, shape and bytes, numbers)}` of a safetensors file."""
    data = np.memmap(path, np.uint8, "r")
    size = int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8 : 8 + size]))
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = (8 + size + at for at in entry["data_offsets"])
            raw, kind, shape = data[start:stop], entry["dtype"], entry["shape"]
            digest = hashlib.sha256(f"{kind}{shape}".encode() + raw.tobytes()).hexdigest()
            if kind == "BF16":
                numbers = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                code = {"BOOL": "?", "F": "f", "I": "i", "U": "u", "C": "c"}[kind.rstrip("0123456789")]
                numbers = raw.view(code if code == "?" else f"<{code}{int(kind[1:]) // 8}")
            tensors[name] = digest, numbers.reshape(shape)
    return tensors


# -- small helpers ---------------------------------------------------------------------------------


def need(holds: Any, why: str) -> None:
    if not holds:
        raise Rejected(why)


def indices(ranges: Sequence[Sequence[int]], size: int) -> Array:
    """`[[0, 2], [5, 6]]` is 0, 1, 5: strictly rising, and within the axis."""
    found = np.concatenate([np.arange(a, b) for a, b in ranges] or [np.arange(0)])
    need((np.diff(found) > 0).all(), "indices are not in rising order")
    need(not len(found) or (found[0] >= 0 and found[-1] < size), "an index lies outside its axis")
    return found


def whole(shape: Sequence[int]) -> tuple[Array, ...]:
    return tuple(np.arange(size) for size in shape)


def full(value: Value, axes: Sequence[int], why: str) -> None:
    cut = sorted({a % len(value.shape) for a in axes} & {*value.touched()}) if axes else []
    need(not cut, f"{why}, of which indices were removed along axis {cut}")


def same_kept(one: Sequence[Array], other: Sequence[Array]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def meet(operands: Sequence[tuple[tuple[int, ...], tuple[Array, ...]]]) -> tuple[Any, Any]:
    """Shape and kept indices where operands broadcast: what meets must be kept alike."""
    shape = np.broadcast_shapes(*(sizes for sizes, _ in operands))
    kept = [np.arange(1)] * len(shape)
    for axis in range(-len(shape), 0):
        wide = [k[axis] for sizes, k in operands if len(sizes) >= -axis and sizes[axis] != 1]
        for each in wide:
            need(np.array_equal(each, wide[0]), f"operands keep different indices of axis {axis}")
            kept[axis] = each
    return shape, tuple(kept)


def squeezed(known: Array) -> Array | None:
    """The same with length one along axes that make no difference; `None` if all is unknown."""
    if np.isnan(known).all():
        return None
    for axis in range(known.ndim):
        first = known.take([0], axis)
        if known.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, known.shape), known, True):
            known = first
    return known


def spread(known: Array, axis: int, size: int) -> Array:
    return np.repeat(known, size, axis) if known.shape[axis] != size else known


def cut(known: Array, kept: Sequence[Array]) -> Array:
    """What is known at the kept indices."""
    for axis, each in enumerate(kept):
        if known.shape[axis] != 1:
            known = known.take(each, axis)
    return known


# -- the vocabulary --------------------------------------------------------------------------------

MOVES: dict[str, Callable[..., Array]] = {
    "reshape": lambda a, shape: a.reshape(shape),
    "permute": lambda a, axes: a.transpose(axes),
    "expand": lambda a, shape: np.broadcast_to(a, shape),
    "slice": lambda a, axis, start, stop, step: a[(slice(None),) * axis + (slice(start, stop, step),)],
    "take": lambda a, axis, places: a.take(places, axis),
    "flip": lambda a, axes: np.flip(a, axes),
    "roll": lambda a, shifts, axes: np.roll(a, shifts, axes),
    "window": lambda a, axis, size, step: np.lib.stride_tricks.sliding_window_view(a, size, axis)[
        (slice(None),) * axis + (slice(None, None, step),)
    ],
    "diagonal": lambda a, offset, one, two: a.diagonal(offset, one, two),
    "repeat": lambda a, times: np.tile(a, times),
}
"""Operators that only move numbers, as functions of any array."""


def _gelu(x: Array, how: str = "none") -> Array:
    if how == "tanh":
        return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(erf, otypes=[float])(x / 2**0.5))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y, alpha=1: x + alpha * y,
    "sub": lambda x, y, alpha=1: x - alpha * y,
    "rsub": lambda x, y, alpha=1: y - alpha * x,
    "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.abs, "exp": np.exp,
    "log": np.log, "sqrt": np.sqrt, "square": np.square, "pow": np.power, "sin": np.sin,
    "cos": np.cos, "tanh": np.tanh, "maximum": np.maximum, "minimum": np.minimum,
    "rsqrt": lambda x: x**-0.5, "reciprocal": lambda x: 1 / x, "cast": lambda x, kind: x if "float" in kind else np.where(x == 0, 0, np.nan),
    "relu": lambda x: np.maximum(x, 0), "sigmoid": _sigmoid, "gelu": _gelu,
    "silu": lambda x: x * _sigmoid(x), "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "clamp": lambda x, low, high: np.clip(x, low, high),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "leaky_relu": lambda x, slope=0.01: np.where(x > 0, x, slope * x),
    "elu": lambda x, a=1, s=1, i=1: np.where(x > 0, x * s, a * s * np.expm1(np.minimum(x * i, 50))),
    "softplus": lambda x, b=1, t=20: np.where(x * b > t, x, np.log1p(np.exp(np.minimum(x * b, t))) / b),
    "batch_norm": lambda x, w, b, mean, var, eps: (x - mean) / np.sqrt(var + eps) * w + b,
    "prelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "where": lambda c, x, y: np.where(c != 0, x, y),
}  # fmt: skip
"""Functions that work number by number, and that this file can compute."""

OTHER_POINTWISE = set(
    "eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or "
    "bitwise_not bitwise_xor erf floor ceil round trunc sign isnan isinf log1p expm1 log2 exp2 "
    "floor_divide remainder fmod atan2 sinh cosh tan asin acos atan log_sigmoid celu selu "
    "hardtanh logit lerp addcmul addcdiv nan_to_num threshold softsign hardshrink softshrink "
    "frac sgn isfinite log10 erfinv heaviside".split()
)
"""More of these, of whose results this file knows only that they are made number by number."""

EXACT = set("mul div neg abs relu clamp hardsigmoid hardswish maximum minimum where cast sqrt".split())
"""Of these a zero is a zero whatever the rounding; of others only where all operands are zero."""

SPECIAL = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}
REDUCE = set("sum mean amax amin max min var std var_mean prod argmax argmin any all norm logsumexp median".split())
KEEP = set("softmax log_softmax cumsum cumprod normalise rms_normalise sort argsort tril triu".split())
POOL = {"max_pool", "avg_pool"}
RESIZE = set("adaptive_avg_pool adaptive_max_pool nearest nearest_exact linear bilinear bicubic trilinear "
             "bicubic_aa bilinear_aa topk reflection_pad replication_pad".split())  # fmt: skip
EVEN = set("mean amax amin max min median adaptive_avg_pool adaptive_max_pool nearest nearest_exact "
           "linear bilinear bicubic trilinear max_pool reflection_pad replication_pad".split())  # fmt: skip
"""Functions of rows that give c for rows of nothing but c; all below give 0 for rows of zeros."""
OF_ZEROS = EVEN | set("sum cumsum var std norm avg_pool prod tril triu".split())
OVER = {"mean", "var", "var_mean", "normalise", "rms_normalise"}


class Checker:
    """The steps, one after the other; `values` is all that has been derived so far."""

    def __init__(self, original: dict[str, Any], small: dict[str, Any]) -> None:
        self.files = original, small
        self.values: dict[int, Value] = {}
        self.longest = 0
        self.notes: list[str] = []

    def run_rule(self, step: dict[str, Any], claimed: list[Value]) -> list[Value]:
        """Derive the results of one step; where a rule needs to be told, from what is claimed."""
        told = dict(step.get("with", {}))
        small = {**told, **step.get("small", {})}
        need(set(small) == set(told), "the small model is told something of its own")
        inputs = [self.values[at] for at in step["in"]]
        rule = getattr(self, f"rule_{step['op']}", None)
        need(rule is not None, f"there is no operator {step['op']!r} in the vocabulary")
        loose = [at for at, value in enumerate(inputs) if value.folded is not None]
        bias = {"conv": [2], "matmul": [2]}.get(step["op"])
        need(not loose or loose == bias, "a bias with constants folded in is used as something else")
        with np.errstate(all="ignore"):
            return list(rule(inputs, told, small, claimed))

    def run(self, step: dict[str, Any], claims: Sequence[dict[str, Any]]) -> None:
        """Derive the results of one step, and hold the claims to them."""
        claimed = [self.claimed(claims[at]) for at in step["out"]]
        made = self.run_rule(step, claimed)
        need(len(made) >= len(claimed), "there are more results than the operator has")
        for at, value, said in zip(step["out"], made, claimed, strict=False):
            need(at not in self.values, f"value {at} is made twice")
            need(value.shape == said.shape, f"the result has shape {value.shape}, not {said.shape}")
            need(same_kept(value.kept, said.kept), f"value {at} keeps other indices than is claimed")
            self.hold(value, claims[at])
            self.values[at] = value

    def claimed(self, claim: dict[str, Any]) -> Value:
        shape = tuple(claim["shape"])
        kept = list(whole(shape))
        for axis, ranges in claim.get("kept", {}).items():
            kept[int(axis)] = indices(ranges, shape[int(axis)])
        return Value(shape, tuple(kept))

    def hold(self, value: Value, claim: dict[str, Any]) -> None:
        """What is claimed to be zero or constant must have been derived to be."""
        for what in ("zero", "constant"):
            for axis, ranges in claim.get(what, {}).items():
                places = indices(ranges, value.shape[int(axis)])
                known = spread(value.numbers(), int(axis), value.shape[int(axis)]).take(places, int(axis))
                holds = known == 0 if what == "zero" else ~np.isnan(known)
                need(holds.all(), f"indices {ranges} of axis {axis} are claimed to be {what}, which does not follow")

    # -- where values come from --------------------------------------------------------------------

    def rule_input(self, inputs: Any, told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """An input, a constant of the source, or a tensor held elsewhere: whole in both models."""
        return [Value(c.shape, whole(c.shape)) for c in claimed]

    def rule_fill(self, inputs: Any, told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """A tensor of one number: any part of it is one, too."""
        need(told["value"] == small["value"], "it is filled with another number")
        need(claimed[0].small() == tuple(small["shape"]), "the small tensor has another shape")
        known = np.full((1,) * len(told["shape"]), float(told["value"]))
        return [Value(tuple(told["shape"]), claimed[0].kept, known)]

    def rule_tensor(self, inputs: Any, told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """A parameter or buffer: the small one is the original at the kept indices, bit for bit."""
        name, kept = told["name"], claimed[0].kept
        need(name in self.files[1], f"SMALL has no tensor {name!r}")
        here = self.files[1][name][1]
        if told.get("fold") == "gained":
            need(name not in self.files[0], f"{name!r} is in ORIGINAL, too")
            return [Value(claimed[0].shape, kept, np.zeros(1), here)]
        need(name in self.files[0], f"ORIGINAL has no tensor {name!r}")
        numbers = self.files[0][name][1]
        need(numbers.shape == claimed[0].shape, f"{name!r} has shape {numbers.shape} in ORIGINAL")
        need(here.shape == claimed[0].small(), f"{name!r} has shape {here.shape} in SMALL")
        need(here.dtype == numbers.dtype, f"{name!r} is of another type in SMALL")
        known = numbers if numbers.dtype.kind == "f" else None
        finite = known is None or bool(np.isfinite(known).all())
        if told.get("fold"):
            need(finite and len(kept) == 1, f"{name!r} cannot have taken up constants")
            return [Value(numbers.shape, kept, known, here)]
        part = numbers[np.ix_(*kept)] if kept and numbers.shape != here.shape else numbers
        need(np.array_equal(part, here), f"{name!r} in SMALL is not the kept part of that in ORIGINAL")
        need(finite or numbers.shape == here.shape, f"{name!r} is cut, and holds infinities or NaN")
        return [Value(numbers.shape, kept, known if finite else None)]

    def rule_same(self, inputs: list[Value], told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """Any function at all, told the same and given the same, gives the same."""
        need(told == small, "the small model tells the operator something else")
        for value in inputs:
            full(value, range(len(value.shape)), "the operator has no rule but that of equal inputs")
        return [Value(c.shape, whole(c.shape)) for c in claimed]

    # -- numbers that move -------------------------------------------------------------------------

    def rule_move(self, inputs: list[Value], told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """Both models move the same numbers to the same places, as their places in the original show."""
        (value,), (out,) = inputs, claimed
        there = _moved(np.arange(prod(value.shape)).reshape(value.shape), told["moves"])
        if told != small or value.touched() or out.touched():
            before = np.arange(prod(value.shape)).reshape(value.shape)[np.ix_(*value.kept)]
            after = _moved(before, small["moves"])
            need(there.shape == out.shape, f"the result has shape {there.shape}, not {out.shape}")
            need(np.array_equal(there[np.ix_(*out.kept)], after), "the small model moves other numbers")
        if value.known is None:
            return [Value(there.shape, out.kept)]
        compact = value.known.size < prod(value.shape)
        known = _moved(np.broadcast_to(value.known, value.shape), told["moves"])
        return [Value(there.shape, out.kept, squeezed(known) if compact else known)]

    def rule_cat(self, inputs: list[Value], told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """Pieces one behind the other: what is kept of each is kept of the whole."""
        axis, kept, start = told["axis"], list(inputs[0].kept), 0
        need(told == small, "the pieces are put together along another axis")
        places = []
        for value in inputs:
            places.append(value.kept[axis] + start)
            start += value.shape[axis]
            others = [(k, f) for a, (k, f) in enumerate(zip(value.kept, kept, strict=True)) if a != axis]
            need(all(np.array_equal(k, f) for k, f in others), "the pieces keep different indices")
        kept[axis] = np.concatenate(places)
        shape = tuple(start if a == axis else s for a, s in enumerate(inputs[0].shape))
        if all(value.known is None for value in inputs):
            return [Value(shape, tuple(kept))]
        pieces = [spread(value.numbers(), axis, value.shape[axis]) for value in inputs]
        sizes = [max(p.shape[a] for p in pieces) for a in range(len(shape))]
        wide = [np.broadcast_to(p, [p.shape[a] if a == axis else s for a, s in enumerate(sizes)]) for p in pieces]
        return [Value(shape, tuple(kept), squeezed(np.concatenate(wide, axis)))]

    def rule_lookup(self, inputs: list[Value], told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """Rows by number: the rows and the numbers are whole, the other axes are what they are."""
        (table, places), axis = inputs, told["axis"]
        need(told == small, "it is looked up along another axis")
        full(table, [axis], "rows are looked up by number")
        full(places, range(len(places.shape)), "numbers of rows are read")
        kept = (*table.kept[:axis], *places.kept, *table.kept[axis + 1 :])
        shape = (*table.shape[:axis], *places.shape, *table.shape[axis + 1 :])
        known = None
        if table.known is not None:
            known = _even(table.known, (axis,))
            known = known.reshape(*known.shape[:axis], *[1] * len(places.shape), *known.shape[axis + 1 :])
        return [Value(shape, kept, None if known is None else squeezed(known))]

    # -- number by number --------------------------------------------------------------------------

    def rule_pointwise(self, inputs: list[Value], told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """Each number is made of those at its place, so that what meets must be kept alike."""
        function, arguments = told["function"], told["arguments"]
        need(told == small, "the small model computes another function, or with other numbers")
        need(function in FUNCTIONS or function in OTHER_POINTWISE, f"{function!r} is no function of single numbers")
        lead = told.get("axes") or [None] * len(inputs)
        operands = [_along(value, axis, len(claimed[0].shape)) for value, axis in zip(inputs, lead, strict=True)]
        shape, kept = meet([(v.shape, v.kept) for v in operands])
        given = [v.numbers() for v in operands]
        known = None
        if all(v.known is not None for v in operands) or function in ("mul", "div", "where"):
            known = squeezed(_computed(function, [given[a["value"]] if isinstance(a, dict) else SPECIAL.get(a, a) for a in arguments]))
        return [Value(shape, kept, known)]

    # -- functions of rows -------------------------------------------------------------------------

    def rule_along(self, inputs: list[Value], told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """A function of rows along some axes; which rows there are makes no difference to the others."""
        (value,), function, axes = inputs, told["function"], told["axes"]
        need(all(0 <= a < len(value.shape) for a in axes) and len({*axes}) == len(axes), "no such axes")
        over = told.get("over")
        if over is None:
            need(told == small, "the small model tells the operator something else")
            if function in ("sum", "norm") and {*axes} & {*value.touched()}:
                self.sum_over(value, axes)
            else:
                full(value, axes, f"{function} runs over all indices")
        else:
            need(function in OVER, f"{function} cannot be taken over some of the indices only")
            need(told == small, "the small model tells the operator something else")
            for axis in axes:
                stay = indices(over.get(str(axis), [[0, value.shape[axis]]]), value.shape[axis])
                need(np.array_equal(stay, value.kept[axis]), "it is not taken over the indices that are left")
            self.notes.append(f"the {function} is taken over the indices that are left, in both models")
        shape = _along_shape(function, value.shape, told)
        need(len(shape) == len(value.shape), f"{function!r} is no function of rows")
        kept = tuple(np.arange(s) if a in axes else value.kept[a] for a, s in enumerate(shape))
        if over is not None and function in ("normalise", "rms_normalise"):
            kept = value.kept
        known = None
        if value.known is not None and function in OF_ZEROS and over is None:
            even = _even(value.known, axes)
            known = squeezed(even if function in EVEN else np.where(even == 0, 0.0, np.nan))
        if told.get("keepdim", True) is False:
            stay = [a for a in range(len(shape)) if a not in axes]
            known = None if known is None else known.reshape([known.shape[a] for a in stay])
            shape, kept = tuple(shape[a] for a in stay), tuple(kept[a] for a in stay)
        return [Value(shape, kept, known), Value(shape, kept)]

    def sum_over(self, value: Value, axes: Sequence[int]) -> None:
        """A sum loses only what is zero."""
        for axis in {*axes} & {*value.touched()}:
            gone = np.setdiff1d(np.arange(value.shape[axis]), value.kept[axis])
            others = [k if a != axis else np.arange(value.shape[a]) for a, k in enumerate(value.kept)]
            lost = spread(cut(value.numbers(), others), axis, value.shape[axis]).take(gone, axis)
            need((lost == 0).all(), f"a sum runs over removed indices of axis {axis} that are not zero")

    # -- sums of products --------------------------------------------------------------------------

    def rule_matmul(self, inputs: list[Value], told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """Rows times columns: each product that is removed has a factor that is zero."""
        left, right = inputs[0], inputs[1]
        need(told == small, "the small model is told something else")
        need(left.shape[-1] == right.shape[-2], "rows and columns are not equally long")
        need(np.array_equal(left.kept[-1], right.kept[-2]), "rows and columns keep different indices")
        shape, kept = meet([(v.shape[:-2], v.kept[:-2]) for v in (left, right)])
        out = Value((*shape, left.shape[-2], right.shape[-1]), (*kept, left.kept[-2], right.kept[-1]))
        size = left.shape[-1]
        gone = np.setdiff1d(np.arange(size), left.kept[-1])
        one, two = spread(left.numbers(), left.kept.__len__() - 1, size), spread(right.numbers(), len(right.kept) - 2, size)
        l, r = cut(one, (*left.kept[:-1], np.arange(size))), cut(two, (*right.kept[:-2], np.arange(size), right.kept[-1]))
        self.longest = max(self.longest, len(left.kept[-1]))
        lost = _product(l[..., gone], r[..., gone, :])
        bias = inputs[2] if len(inputs) > 2 else None
        self.settle(lost, bias, r.dtype)
        known = _product(one, two)
        if bias is not None:
            both = meet([(out.shape, out.kept), (bias.shape, bias.kept)])
            need(both[0] == out.shape and same_kept(both[1], out.kept), "the bias does not fit")
            known = known + bias.numbers()
        return [Value(out.shape, out.kept, squeezed(known))]

    def settle(self, lost: Array, bias: Value | None, dtype: Any) -> None:
        """What removed products add up to is nothing, or is in the small model's bias."""
        need(not np.isnan(lost).any(), "a sum runs over removed indices that are not zero")
        if bias is None or bias.folded is None:
            need((lost == 0).all(), "a sum runs over removed indices that hold a constant")
            return
        need(lost.size == lost.shape[-1] or (lost == 0).all(), "a constant is not the same everywhere")
        now = cut(bias.numbers(), bias.kept) + lost.reshape(-1, lost.shape[-1])[0]
        need(bias.folded.shape == np.broadcast_shapes(now.shape), "the small bias has another shape")
        scale = np.abs(now).max(initial=0) + np.abs(lost).max(initial=0)
        apart = np.abs(bias.folded - now).max(initial=0)
        need(apart <= 256 * np.finfo(bias.folded.dtype).eps * scale, f"the small bias is off by {apart:.1e}")

    def rule_conv(self, inputs: list[Value], told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """Sums of products over the channels of a group, and over a window."""
        value, weight = inputs[0], inputs[1]
        bias = inputs[2] if len(inputs) > 2 else None
        need({**told, "groups": 0} == {**small, "groups": 0}, "the small model is told something else")
        full(value, range(2, len(value.shape)), "a window slides along it")
        full(weight, range(2, len(weight.shape)), "a window is whole")
        groups, fewer, turned = told["groups"], small["groups"], told["transposed"]
        first, second = weight.kept[0], weight.kept[1]
        need(len(first) % fewer == 0 and value.shape[1] % groups == 0, "channels do not fill their groups")
        # For each filter: its group, and the channels of the input that it reads.
        if turned:
            need(groups == fewer == 1, "there is no rule for transposed convolutions in groups that are cut"
                 ) if value.touched() or weight.touched() else None
            width, made = value.shape[1] // groups, weight.shape[1] * groups
            reads, inner, outer = np.arange(width)[None], first, second
            flat = np.moveaxis(np.broadcast_to(weight.numbers(), weight.shape), 1, 0) if groups == 1 else None
            need(value.shape[1] == weight.shape[0], "the weight has other channels")
            need(np.array_equal(value.kept[1], first), "the weight keeps other channels than it reads")
            of_group = np.zeros(made, int)
            out = outer if groups == 1 else np.arange(made)
        else:
            width, made = weight.shape[1], weight.shape[0]
            need(width * groups == value.shape[1] and made % groups == 0, "the weight has other channels")
            need(len(second) * fewer == len(value.kept[1]), "the small weight has other channels")
            of_group = np.arange(made) // (made // groups)
            small_group = np.arange(len(first)) // (len(first) // fewer)
            read = value.kept[1].reshape(fewer, -1)[small_group]
            meant = of_group[first][:, None] * width + second[None]
            need(np.array_equal(read, meant), "filters of the small model read other channels")
            inner, out, flat = second, first, np.broadcast_to(weight.numbers(), weight.shape)
        self.longest = max(self.longest, len(inner) * prod(weight.shape[2:]))
        shape = (value.shape[0], made, *_window(value.shape[2:], weight.shape[2:], told))
        kept = (value.kept[0], out, *whole(shape[2:]))
        if bias is not None:
            need(bias.shape == (made,) and np.array_equal(bias.kept[0], out), "the bias does not fit")
        if flat is None:
            return [Value(shape, kept)]
        summed = flat.reshape(*flat.shape[:2], -1).sum(2, dtype=float)
        nonzero = (flat != 0).reshape(*flat.shape[:2], -1).any(2)
        known = value.numbers()
        channel = _even(known, [0, *range(2, known.ndim)]).reshape(-1)
        channel = np.broadcast_to(channel, (value.shape[1],))[of_group[:, None] * width + np.arange(width)[None]]
        term = np.where(~nonzero | (channel == 0), 0.0, summed * channel)
        if any(told["padding"]) or turned:
            term[term != 0] = np.nan  # at the edge a constant counts less often
        gone = np.setdiff1d(np.arange(width), inner)
        self.settle(term[np.ix_(out, gone)].sum(1)[None], bias, flat.dtype)
        result = term.sum(1) + (0 if bias is None else bias.numbers())
        return [Value(shape, kept, squeezed(result.reshape(1, -1, *[1] * (len(shape) - 2))))]

    def rule_attention(self, inputs: list[Value], told: Any, small: Any, claimed: list[Value]) -> list[Value]:
        """softmax(scale · query keyᵀ + mask) value: heads by themselves, and sums of products."""
        query, key, value = inputs[:3]
        need(told == small, "the scale or the mask is another")
        full(query, [-2], "each query is asked")
        full(key, [-2], "the softmax runs over all keys")
        full(value, [-2], "the sum runs over all keys")
        need(key.shape[-2] == value.shape[-2] and query.shape[-1] == key.shape[-1], "shapes do not fit")
        transposed = Value((*key.shape[:-2], key.shape[-1], key.shape[-2]), (*key.kept[:-2], key.kept[-1], key.kept[-2]),
                           None if key.known is None else np.swapaxes(key.known, -1, -2))  # fmt: skip
        scores = self.rule_matmul([query, transposed], {}, {}, [])[0]
        if len(inputs) > 3:
            both = meet([(scores.shape, scores.kept), (inputs[3].shape, inputs[3].kept)])
            need(both[0] == scores.shape and same_kept(both[1], scores.kept), "the mask does not fit")
        shape, kept = meet([(scores.shape[:-2], scores.kept[:-2]), (value.shape[:-2], value.kept[:-2])])
        known = None if value.known is None else _even(value.known, [len(value.shape) - 2])
        known = None if known is None else squeezed(np.where(known == 0, 0.0, np.nan))
        return [Value((*shape, query.shape[-2], value.shape[-1]), (*kept, query.kept[-2], value.kept[-1]), known)]


# -- what the rules compute ------------------------------------------------------------------------


def _moved(array: Array, moves: Sequence[Sequence[Any]]) -> Array:
    for name, *told in moves:
        need(name in MOVES, f"there is no move {name!r}")
        array = MOVES[name](array, *told)
    return array


def _along(value: Value, axis: int | None, ndim: int) -> Value:
    """A vector that lies along one axis of the result, such as the scales of channels."""
    if axis is None:
        return value
    need(len(value.shape) == 1 and 0 <= axis < ndim, "only a vector lies along an axis")
    shape = tuple(value.shape[0] if a == axis else 1 for a in range(ndim))
    kept = tuple(value.kept[0] if a == axis else np.arange(1) for a in range(ndim))
    return Value(shape, kept, None if value.known is None else value.known.reshape([-1 if a == axis else 1 for a in range(ndim)]))


def _computed(function: str, given: list[Any]) -> Array:
    """The results that are the same for every input, and NaN elsewhere."""
    arrays = [np.asarray(g, float) if isinstance(g, np.ndarray) else g for g in given]
    operands = [a for a in arrays if isinstance(a, np.ndarray)]
    if function == "mul" and len(arrays) == 2:
        return np.asarray(np.where((arrays[0] == 0) | (arrays[1] == 0), 0.0, np.multiply(*arrays)))
    if function == "div" and len(arrays) == 2:
        return np.asarray(np.where(arrays[0] == 0, 0.0, np.divide(*arrays)) + 0.0 * np.zeros(np.broadcast_shapes(*(np.shape(a) for a in arrays))))
    if function == "where":
        chosen = np.where(arrays[0] != 0, arrays[1], arrays[2])
        alike = np.asarray(arrays[1]) == arrays[2]
        return np.where(alike, arrays[1], np.where(np.isnan(arrays[0]), np.nan, chosen))
    unknown = np.isnan(sum(0 * a for a in operands)) if operands else np.zeros(())
    if function not in FUNCTIONS:
        return np.full(np.shape(unknown), np.nan)
    result = np.asarray(FUNCTIONS[function](*arrays), float)
    zeros = np.broadcast_to(np.logical_and.reduce([np.broadcast_to(a == 0, result.shape) for a in operands]), result.shape)
    doubtful = (result == 0) & ~zeros if function not in EXACT else (result == 0) & np.logical_or.reduce(
        [np.broadcast_to((a != 0) & (np.abs(a) < 1e-6), result.shape) for a in operands])  # fmt: skip
    return np.where(unknown | doubtful, np.nan, result)


def _even(known: Array, axes: Sequence[int]) -> Array:
    """The number of each row that is one number throughout."""
    first = known
    for axis in axes:
        first = first.take([0], axis)
    return np.where((known == first).all(tuple(axes), keepdims=True), first, np.nan)


def _product(left: Array, right: Array) -> Array:
    """A product of matrices of which some numbers are unknown."""
    if not left.shape[-1]:
        return np.zeros((*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1]))
    unknown = [np.isnan(each).astype(np.float32) for each in (left, right)]
    nonzero = [(each != 0).astype(np.float32) for each in (left, right)]
    result = np.nan_to_num(left).astype(float) @ np.nan_to_num(right).astype(float)
    terms = nonzero[0] @ nonzero[1]
    open_terms = unknown[0] @ nonzero[1] + nonzero[0] @ unknown[1]
    return np.where(open_terms > 0, np.nan, np.where((terms > 0) & (result == 0), np.nan, result))


def _window(sizes: Sequence[int], window: Sequence[int], told: dict[str, Any]) -> list[int]:
    """How many places a window has along each axis."""
    found = []
    for at, (size, width) in enumerate(zip(sizes, window, strict=True)):
        step, pad, apart = (told[key][at] for key in ("stride", "padding", "dilation"))
        if told.get("transposed"):
            found.append((size - 1) * step - 2 * pad + apart * (width - 1) + told["output_padding"][at] + 1)
            continue
        left = size + 2 * pad - apart * (width - 1) - 1
        count = (-(-left // step) if told.get("ceil") else left // step) + 1
        found.append(count - (bool(told.get("ceil")) and (count - 1) * step >= size + pad))
    return found


def _along_shape(function: str, shape: tuple[int, ...], told: dict[str, Any]) -> tuple[int, ...]:
    axes = list(told["axes"])
    if function in REDUCE:
        sizes = [1] * len(axes)
    elif function in KEEP:
        return shape
    elif function in POOL:
        sizes = _window([shape[a] for a in axes], told["window"], told)
    else:
        need(function in RESIZE, f"there is no function of rows {function!r}")
        sizes = told["size"]
    need(len(sizes) == len(axes), "there are as many sizes as axes")
    return tuple(sizes[axes.index(a)] if a in axes else size for a, size in enumerate(shape))


# -- a whole certificate ---------------------------------------------------------------------------


def derive(original: dict[str, Any], small: dict[str, Any], certificate: dict[str, Any]) -> Checker:
    """Check each step; the values that were derived are in what is returned."""
    checker, claims = Checker(original, small), certificate["values"]
    for number, step in enumerate(certificate["steps"]):
        try:
            checker.run(step, claims)
        except (Rejected, KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            why = str(error) if isinstance(error, Rejected) else f"malformed: {type(error).__name__}: {error}"
            raise Rejected(f"step {number}, {step.get('op')} ({step.get('from', '')}): {why}") from error
    for at in certificate["outputs"]:
        need(at in checker.values, f"output {at} is made by no step")
        full(checker.values[at], range(len(checker.values[at].shape)), f"value {at} is an output")
    return checker


def check(original: str | Path, small: str | Path, certificate: str | Path) -> Verdict:
    """Check a certificate against the two files that it is about.

    Raises:
        Rejected: It does not prove that the two compute the same; the message names the step.
    """
    try:
        told = json.loads(Path(certificate).read_text())
        files = read_tensors(original), read_tensors(small)
        need(told["format"] == "prune-certificate" and told["version"] == 1, "this is no certificate of version 1")
        need(len(told["outputs"]) > 0, "the certificate names no output")
        for which, tensors in zip(("original", "small"), files, strict=True):
            for name, digest in told[which].items():
                need(name in tensors, f"{which.upper()} has no tensor {name!r}")
                need(tensors[name][0] == digest, f"{which.upper()} is another file: {name!r} has changed")
        read = {s["with"]["name"] for s in told["steps"] if s["op"] == "tensor"}
        gained = {s["with"]["name"] for s in told["steps"] if s.get("with", {}).get("fold") == "gained"}
        need(read == set(told["small"]) and set(told["original"]) == read - gained, "tensors are read without a hash")
        checker = derive(*files, told)
        return Verdict(len(told["steps"]), checker.longest, told["assumptions"] + sorted({*checker.notes}), checker.values)
    except (KeyError, TypeError, ValueError, OSError, AttributeError) as error:
        raise Rejected(f"malformed: {type(error).__name__}: {error}") from error

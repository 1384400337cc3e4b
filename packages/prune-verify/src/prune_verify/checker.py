"""Check a certificate: that a small model computes what a masked one does, for every input.

A certificate is a list of steps, each an operator of a small vocabulary between numbered values.
They are the program of the original and of the small model at once: what an operator is told
otherwise in the small one stands beside. The claim about each value is that the small model's is
the original's at the indices that are *kept*. This file derives that again, step by step, from
the tensors in the two files, and names the first step that does not follow.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prune_verify.known import Kept, Value, computed, derived, even, part, product
from prune_verify.tensors import read_tensors
from prune_verify.vocabulary import (
    AXIAL,
    EVEN,
    OF_ZEROS,
    OPERATORS,
    OVER,
    POINTWISE,
    ROWS,
    Array,
    moved,
)

FORMAT, GIVEN = "prune-certificate", "what both models are given"

Told = dict[str, Any]
Tensors = Mapping[str, tuple[str, Array]]


class Rejected(Exception):  # noqa: N818
    """A step that does not follow, or a file that is not the one that was certified."""


class Verdict(NamedTuple):
    """An accepted certificate: its steps, the longest sum, and all that it takes for granted."""

    steps: int
    longest: int
    assumptions: list[str]


def need(holds: Any, why: str) -> None:
    """Refuse what does not hold."""
    if not holds:
        raise Rejected(why)


def uncut(value: Value, axes: Iterable[int], why: str) -> None:
    """Refuse a value that lost indices of one of these axes."""
    cut = sorted({*axes} & value.kept.keys())
    need(not cut, f"{why}, but indices were removed along axis {cut}")


def alike(one: Kept, other: Kept) -> bool:
    """Whether the same indices of the same axes are kept."""
    return one.keys() == other.keys() and all(np.array_equal(one[a], other[a]) for a in one)


def meet(*operands: Value) -> tuple[tuple[int, ...], Kept]:
    """Shape and kept indices where operands broadcast: what meets must be kept alike."""
    shape = np.broadcast_shapes(*(each.shape for each in operands))
    kept: Kept = {}
    for axis, size in enumerate(shape):
        here = [(each, axis - len(shape) + len(each.shape)) for each in operands]
        met = [v.kept.get(at) for v, at in here if at >= 0 and v.shape[at] == size]
        cut = [each for each in met if each is not None]
        same = len(cut) in (0, len(met)) and all(np.array_equal(each, cut[0]) for each in cut)
        need(same, f"operands differ along axis {axis}")
        kept |= {axis: cut[0]} if cut else {}
    return shape, kept


class Checker:
    """The steps, one after the other; `values` is all that has been derived so far.

    Each rule is given the values that are read, what the operator is told in the original and in
    the small model, and what is claimed of the results; it returns what follows of them.
    """

    def __init__(self, original: Tensors, small: Tensors, sets: Iterable[Array] = ()) -> None:
        self.files, self.sets, self.values = (original, small), list(sets), dict[int, Value]()
        self.longest, self.notes = 0, set[str]()

    def derive(self, step: Told, claimed: Sequence[Value]) -> Sequence[Value]:
        """What follows of the results of one step."""
        operator, told = step["op"], step.get("with", {})
        small, values = told | step.get("small", {}), [self.values[at] for at in step["in"]]
        need(operator in OPERATORS, f"there is no operator {operator!r} in the vocabulary")
        need(told.keys() <= OPERATORS[operator], "the operator cannot be told that")
        need(small.keys() == told.keys(), "the small model is told something of its own")
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
        claimed = [self.claimed(claims[at]) for at in step["out"]]
        made = self.derive(step, claimed)
        need(len(made) >= len(claimed), "the operator has fewer results")
        for number, value, said in zip(step["out"], made, claimed, strict=False):
            need(number not in self.values, f"value {number} is made twice")
            need(value.shape == said.shape, f"the result is {value.shape}, not {said.shape}")
            need(alike(value.kept, said.kept), f"value {number} keeps other indices than claimed")
            for what in ("zero", "constant"):
                for axis, chosen in self.chosen(claims[number], what).items():
                    known = part(value.known, {axis: chosen})
                    holds = (known == 0 if what == "zero" else ~np.isnan(known)).all()
                    need(holds, f"indices {chosen} of axis {axis} are not known to be {what}")
            self.values[number] = value

    def chosen(self, claim: Told, what: str) -> Kept:
        """The indices of axes of which a certificate says something."""
        found = {int(axis): self.sets[number] for axis, number in claim.get(what, {}).items()}
        for axis, each in found.items():
            need(len(each) and each[-1] < claim["shape"][axis], "an index lies outside its axis")
        return found

    def claimed(self, claim: Told) -> Value:
        """A value as it is claimed to be."""
        kept = self.chosen(claim, "kept")
        need(all(len(kept[a]) < claim["shape"][a] for a in kept), "all are kept, and some are gone")
        return derived(claim["shape"], kept)

    # -- where values come from --------------------------------------------------------------------

    def same(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Any function, told the same and given the same, gives the same; so does an input."""
        for value in values:
            uncut(value, value.kept, "the operator has no rule but that of equal inputs")
        return [derived(each.shape, {}) for each in claimed]

    def fill(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """A tensor of one number: so is each part of it."""
        need(told["value"] == small["value"], "it is filled with another number")
        need(tuple(small["shape"]) == claimed[0].small, "the small model's is of another size")
        return [derived(told["shape"], claimed[0].kept, float(told["value"]))]

    def tensor(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """A parameter or buffer: in SMALL it is the kept part of that in ORIGINAL, to the bit."""
        name, said, gained = told["name"], claimed[0], told.get("fold") == "gained"
        need(name in self.files[1], f"SMALL has no tensor {name!r}, or its hash is missing")
        need(gained != (name in self.files[0]), f"ORIGINAL and the certificate differ on {name!r}")
        here = self.files[1][name][1]
        there = np.zeros(said.shape, here.dtype) if gained else self.files[0][name][1]
        need(there.shape == said.shape, f"{name!r} has shape {there.shape} in ORIGINAL")
        need(here.shape == said.small, f"{name!r} has shape {here.shape} in SMALL")
        need(here.dtype == there.dtype, f"{name!r} is of another type in SMALL")
        real = there.dtype.kind == "f"
        finite = real and bool(np.isfinite(there).all())
        value = said._replace(known=there) if finite else said
        if "fold" in told:
            need(finite and there.ndim == 1, f"{name!r} is no bias that constants can be added to")
            return [value._replace(folded=here)]
        need(finite or not real or not said.kept, f"{name!r} is cut, and not finite")
        same = np.array_equal(part(there, said.kept), here)
        need(same, f"{name!r} in SMALL is not the kept part of ORIGINAL's")
        return [value]

    # -- functions of places, of numbers and of rows -----------------------------------------------

    def move(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Both models put the same numbers at the same places, as their places of origin show.

        Along an axis that no move looks at, all places fare alike: there, one stands for all.
        """
        said, moves, ndim = claimed[0], told["moves"], len(values[0].shape)
        looked = {*range(ndim)}
        if told == small and [name for name, *_ in moves] == ["permute"]:
            ((value,), order) = values, moves[0][1]
            need({*order} == looked, "these are no axes in another order")
            kept = {new: value.kept[old] for new, old in enumerate(order) if old in value.kept}
            return [derived([value.shape[a] for a in order], kept, value.known.transpose(order))]
        if {name for name, *_ in (*moves, *small["moves"])} <= AXIAL:
            named = {axis for _, axis, *_ in (*moves, *small["moves"])}
            need(named <= looked, "there is no such axis")
            looked = named
        free = [axis for axis in range(ndim) if axis not in looked]
        places, start = [], 0
        for value in values:
            sizes = value.across(free).shape
            places.append(np.arange(start, start := start + prod(sizes)).reshape(sizes))
            sure = [value.shape[a] == said.shape[a] for a in free]
            sure += [np.array_equal(value.at(a), said.at(a)) for a in free]
            need(all(sure), "the pieces differ along another axis")
        there = moved(places, moves)
        size = said.across(free).shape
        need(there.shape == size, f"the result has shape {there.shape}, not {size}")
        left = [part(each, v.kept) for each, v in zip(places, values, strict=True)]
        same = np.array_equal(part(there, said.kept), moved(left, small["moves"]))
        need(same, "the small model moves other numbers")
        if all(np.isnan(value.known).all() for value in values):
            return [derived(said.shape, said.kept)]
        known = [value.wide(*looked) for value in values]
        for axis in free:
            length = max(each.shape[axis] for each in known)
            known = [np.repeat(k, length, axis) if k.shape[axis] < length else k for k in known]
        return [derived(said.shape, said.kept, moved(known, moves))]

    def pointwise(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Each number is made of those at its place, so what meets must be kept alike."""
        function, special = told["function"], {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}
        need(function in POINTWISE, f"{function!r} is no function of single numbers")
        given = [
            values[each["value"]].known if isinstance(each, dict) else special.get(each, each)
            for each in told["arguments"]
        ]
        return [derived(*meet(*values), computed(function, given))]

    def along(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """A function of rows along some axes: which other rows there are makes no difference.

        Of several values the first is read or written, at places that the second has.
        """
        function, over, (value, *others) = told["function"], told.get("over"), values
        size = dict(zip(told["axes"], told["size"], strict=True))
        need(function in ROWS, f"{function!r} is no function of rows")
        need(size.keys() <= {*range(len(value.shape))}, "there are no such axes")
        cut = {axis: kept for axis, kept in value.kept.items() if axis in size}
        if over is not None:
            need(function in OVER, f"{function} runs over whole rows")
            meant = self.chosen({"shape": value.shape, "over": over}, "over")
            need(alike(meant, cut), "it runs over other indices than are left")
            self.notes.add(
                f"In both models a {function} over axes {[*size]} of {value.shape} runs over the "
                f"indices that are left, {[*map(len, cut.values())]}, and is zero elsewhere."
            )
            value = value._replace(known=part(value.known, cut))
        elif function == "sum" or (function == "norm" and told["told"] == [2]):
            for axis in cut:
                lost = part(value.wide(axis), value.across(size).kept | {axis: value.gone(axis)})
                need((lost == 0).all(), f"a sum loses indices of axis {axis} that are not zero")
        else:
            uncut(value, size, f"{function} runs over all indices")
        for each in others:
            need(len(each.shape) == len(value.shape), "the rows have other axes")
            uncut(each, size, f"{function} runs over all indices")
        shape, kept = meet(*(each.across(size) for each in values))
        known = even(value.known, size)
        for each in others[1:]:
            known = np.where(known == even(each.known, size), known, np.nan)
        if function not in EVEN:
            known = np.where((known == 0) & (function in OF_ZEROS), 0.0, np.nan)
        shape = tuple(size.get(axis, length) for axis, length in enumerate(shape))
        if over is not None and shape == value.shape:  # what is not left is zero, by definition
            kept |= cut
            for axis in cut:
                known = np.repeat(known, shape[axis], axis)
                known[(slice(None),) * axis + (value.gone(axis),)] = 0
        return [derived(shape, kept, known), derived(shape, kept)]

    # -- sums of products --------------------------------------------------------------------------

    def matmul(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Rows times columns: each product that goes has a factor of zero, or is in the bias."""
        left, right, *bias = values
        row, column = len(left.shape) - 1, len(right.shape) - 2
        need(left.shape[row] == right.shape[column], "rows and columns are not equally long")
        met = np.array_equal(left.at(row), right.at(column))
        need(met, "rows and columns keep different indices")
        shape, kept = meet(left.across({row}), right.across({column}), *bias)
        one, two, gone = left.wide(row), right.wide(column), left.gone(row)
        self.longest = max(self.longest, len(left.at(row)))
        lost = np.zeros((1, 1))
        if len(gone):
            lost = part(one, left.kept | {row: gone})
            if lost.any():
                lost = product(lost, part(two, right.kept | {column: gone}))
            lost = lost if lost.any() else np.zeros((1, 1))
        self.settle(lost, bias)
        return [derived(shape, kept, sum((each.known for each in bias), product(one, two)))]

    def conv(self, values: Any, told: Told, small: Told, claimed: Any) -> Sequence[Value]:
        """Sums of products over the channels of a group, and over a window of places."""
        value, weight, *bias = values
        groups, fewer, (made, width) = told["groups"], small["groups"], weight.shape[:2]
        need(told | {"groups": 0} == small | {"groups": 0}, "the small model is told otherwise")
        uncut(value, range(2, len(value.shape)), "a window slides along it")
        uncut(weight, range(2, len(weight.shape)), "a window is whole")
        need(value.shape[1] == groups * width and made % groups == 0, "the channels do not fit")
        # Each filter that is left has to read, in its small group, what it reads in its own.
        first, inner, gone = weight.at(0), weight.at(1), weight.gone(1)
        reads = np.arange(groups * width).reshape(groups, width).repeat(made // groups, 0)
        read = value.at(1).reshape(fewer, -1).repeat(len(first) // fewer, 0)
        need(np.array_equal(read, reads[np.ix_(first, inner)]), "other channels are read")
        kernel = weight.wide(*range(len(weight.shape))).reshape(made, width, -1)
        self.longest = max(self.longest, len(inner) * kernel.shape[2])
        # At an edge, a constant counts less often: then only zeros are the same everywhere.
        edge = any(told["padding"]) or told["transposed"]
        total = np.array(np.nan) if edge else kernel.sum(2, dtype=float)
        total = np.where(kernel.any(2), np.where(total == 0, np.nan, total), 0.0)
        total = total.reshape(groups, -1, width).swapaxes(1, 2)
        channel = even(value.known, {*range(len(value.shape))} - {1})
        channel = np.broadcast_to(channel.ravel(), value.shape[1]).reshape(groups, 1, width)
        lost = product(channel[..., gone], total[:, gone]).reshape(made)
        self.settle(lost[first], bias)
        places, known = told["size"], product(channel, total).reshape(made)
        for each in bias:
            fits = each.shape == (made,) and np.array_equal(each.at(0), first)
            need(fits, "the bias does not fit")
            known = known + each.known
        kept = {0: value.kept[0]} if 0 in value.kept else {}
        kept |= {1: first} if 0 in weight.kept else {}
        known = known.reshape(1, -1, *[1] * len(places))
        return [derived((value.shape[0], made, *places), kept, known)]

    def settle(self, lost: Array, biases: Sequence[Value]) -> None:
        """What removed products add up to is nothing, or is in the small model's bias."""
        need(not np.isnan(lost).any(), "a sum runs over removed indices that are not zero")
        if not biases or biases[0].folded is None:
            need((lost == 0).all(), "a sum runs over removed indices that hold a constant")
            return
        (bias,), folded = biases, biases[0].folded
        need(lost.size in (1, lost.shape[-1]), "a constant is not the same everywhere")
        due = part(bias.wide(0), bias.kept) + lost.ravel()
        size = np.abs(due).max(initial=0) + np.abs(lost).max(initial=0)
        apart = np.abs(folded - due).max(initial=0)
        need(apart <= 256 * np.finfo(folded.dtype).eps * size, f"the bias is off by {apart:.1e}")


def check(original: str | Path, small: str | Path, certificate: str | Path) -> Verdict:
    """Check a certificate against the two files that it is about.

    Raises:
        Rejected: It does not prove that the two compute the same; the message names the step.
    """
    paths = (("ORIGINAL", original), ("SMALL", small), ("CERTIFICATE", certificate))
    found: list[Any] = []
    for which, path in paths:
        try:
            tensors = which != "CERTIFICATE"
            found.append(read_tensors(path) if tensors else json.loads(Path(path).read_text()))
        except Exception as error:
            raise Rejected(f"{which} ({path}) cannot be read: {error}.") from error
    try:
        return check_read(*found)
    except Exception as error:
        if isinstance(error, Rejected):
            raise
        raise Rejected(f"CERTIFICATE is malformed: {error!r}.") from error


def check_read(original: Tensors, small: Tensors, told: Told) -> Verdict:
    """The same with what the files hold."""
    need(isinstance(told, dict) and told.get("format") == FORMAT, "CERTIFICATE is none.")
    need(told["version"] == 1, f"CERTIFICATE is of version {told['version']}, and not of 1.")
    for which, tensors in (("original", original), ("small", small)):
        for name, digest in told[which].items():
            need(name in tensors, f"{which.upper()} has no tensor {name!r}.")
            other = f"{which.upper()} is not the file that was certified: {name!r} differs."
            need(tensors[name][0] == digest, other)
    sets = [np.concatenate([np.arange(*ends) for ends in ranges]) for ranges in told["sets"]]
    need(all((np.diff(each, prepend=-1) > 0).all() for each in sets), "Indices do not rise.")
    # A tensor without a hash is not read.
    hashed = {name: original[name] for name in told["original"]}
    checker = Checker(hashed, {name: small[name] for name in told["small"]}, sets)
    for number, step in enumerate(told["steps"]):
        try:
            checker.run(step, told["values"])
        except Exception as error:
            why = error if isinstance(error, Rejected) else f"malformed: {error!r}"
            where = f"Step {number}, {step['op']} ({step.get('from', '')})"
            raise Rejected(f"{where}: {why}.") from error
    need(told["outputs"], "CERTIFICATE names no output.")
    for output in told["outputs"]:
        need(output in checker.values, f"Output {output} is made by no step.")
        uncut(checker.values[output], checker.values[output].kept, f"Value {output} is an output")
    return Verdict(len(told["steps"]), checker.longest, taken_for_granted(told, checker.notes))


def taken_for_granted(told: Told, notes: Iterable[str]) -> list[str]:
    """What every certificate assumes, what this one says besides, and what the rules noted."""
    given = [s for s in told["steps"] if s["op"] == "same" and s["with"]["call"] == GIVEN]
    shapes = [told["values"][number]["shape"] for step in given for number in step["out"]]
    sizes = ", ".join("×".join(map(str, shape)) or "a number" for shape in shapes)
    return [
        "The steps are what both models compute, in eval mode, on inputs of these sizes: "
        f"{sizes}. They were recorded on one input.",
        "Numbers are real: where one that was removed is multiplied by zero, it is finite. Sums "
        "may run in another order.",
        *told["assumptions"],
        *sorted(notes),
    ]

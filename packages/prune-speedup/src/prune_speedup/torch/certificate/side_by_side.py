"""Two programs as one list of steps, each of which the checker follows as it is written."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_speedup.engine.plan import Plan
from prune_speedup.torch.certificate.program import Program, Step
from prune_speedup.torch.certificate.reference import NoCertificateError, Numbers

if TYPE_CHECKING:
    from prune_verify.known import Value

__all__ = ["SideBySide"]

Kept = dict[int, Any]


class SideBySide:
    """Puts two programs side by side, and lets the checker follow.

    Args:
        original: What the original computes.
        small: What the small model computes.
        plan: What was removed.
        numbers: The tensors of both.
    """

    def __init__(
        self, original: Program, small: Program, plan: Plan, numbers: tuple[Numbers, Numbers]
    ) -> None:
        from prune_verify.checker import Checker

        self._original, self._small, self._plan, self._numbers = original, small, plan, numbers
        self._checker: Checker = Checker(*numbers)
        self._claims: list[dict[str, Any]] = []
        self._sets: dict[bytes, int] = {}
        self._at: dict[int, int] = {}  # values of the original's program, by their new numbers
        self._beside: dict[int, int] = {}  # the small program's values, as the original's
        self._steps: list[dict[str, Any]] = []
        # Values of one number that are smaller in the small model, and what is made of nothing
        # else: which of their indices are kept is for what meets them to say, and may differ.
        self._open: dict[int, tuple[Step, Step]] = {}

    def content(self) -> dict[str, Any]:
        """All that the checker reads, but for the hashes.

        Raises:
            NoCertificateError: The programs differ, or a step does not follow.
        """
        from prune_verify.checker import Rejected

        for step, other in self._pairs():
            try:
                self._follow(step, other)
            except (Rejected, ValueError, IndexError) as error:
                unruled = self._original.unruled.get(step.outs[0])
                why = f"the checker has no rule for {unruled}: " if unruled else ""
                raise NoCertificateError(f"{why}{step.source}: {error}") from error
        for value in self._open.keys() & {*self._original.outputs}:
            self._settle(value, {})
        outputs = [self._at[value] for value in self._original.outputs]
        if [self._beside.get(v) for v in self._small.outputs] != self._original.outputs:
            raise NoCertificateError("the two models return other values")
        for value in outputs:
            if self._checker.values[value].kept:
                raise NoCertificateError("an output is smaller than that of the original")
        return {
            "format": "prune-certificate",
            "version": 1,
            "sets": [ranges_of(each) for each in self._checker.sets],
            "values": self._claims,
            "steps": self._steps,
            "outputs": outputs,
        }

    def taken_for_granted(self, content: dict[str, Any]) -> list[str]:
        """All that the checker will say that this certificate assumes."""
        from prune_verify.checker import taken_for_granted

        return taken_for_granted(content, self._checker.notes)

    def _pairs(self) -> Iterable[tuple[Step, Step]]:
        one, two = self._original.steps, self._small.steps
        for step, other in zip(one, two, strict=False):
            same = step.op == other.op and len(step.outs) == len(other.outs)
            ins = [self._beside.get(value) for value in other.ins]
            if not same or ins != step.ins:
                raise NoCertificateError(
                    f"the small model computes something else than the original from {step.source} "
                    f"on ({other.source})"
                )
            self._beside.update(zip(other.outs, step.outs, strict=True))
            yield step, other
        if len(one) != len(two):
            raise NoCertificateError("one of the models makes more calls than the other")

    def _follow(self, step: Step, other: Step) -> None:
        """Write a step, or leave it for later if only what reads it can say what is kept."""
        less = [self._small.shapes[value] for value in other.outs]
        cut = less != [self._original.shapes[value] for value in step.outs]
        settled = [v for v in dict.fromkeys(step.ins) if v not in self._open]
        met = [self._checker.values[self._at[value]] for value in settled]
        if cut and (step.op == "fill" or self._is_open(step, less[0], met)):
            self._open[step.outs[0]] = step, other
            return
        for value in {*step.ins} - {*settled}:
            self._settle(value, self._wanted(value, step, met))
        self._write(step, other)

    def _is_open(self, step: Step, small: Sequence[int], met: Sequence["Value"]) -> bool:
        """Whether nothing that is read says what is kept of an axis."""
        if step.op != "pointwise" or self._open.keys().isdisjoint(step.ins):
            return False
        shape = self._original.shapes[step.outs[0]]
        axes = [axis - len(shape) for axis, n in enumerate(shape) if small[axis] != n]
        said = [(v, axis) for v in met for axis in axes if axis + len(v.shape) in v.kept]
        return {axis for _, axis in said} != {*axes}

    def _settle(self, value: int, kept: Kept) -> None:
        """Write the step that makes a value, now that it is known what is kept."""
        step, other = self._open[value]
        ndim = len(self._original.shapes[value])
        for each in {*step.ins} & self._open.keys():
            shape, _ = self._sizes(each)
            lead = ndim - len(shape)
            alike = {a - lead: k for a, k in kept.items() if a >= lead and shape[a - lead] != 1}
            self._settle(each, _cut(alike, shape))
        self._write(step, other, kept)

    def _sizes(self, value: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of an open value in the original and in the small model."""
        step, other = self._open[value]
        return self._original.shapes[step.outs[0]], self._small.shapes[other.outs[0]]

    def _write(self, step: Step, other: Step, kept: Kept | None = None) -> None:
        """Write a step that the checker can follow."""
        from prune_verify.known import derived

        told, small = dict(step.told), dict(other.told)
        ins = [self._at[value] for value in step.ins]
        values = [self._checker.values[value] for value in ins]
        if step.op == "along" and told["function"] in _OVER:
            self._over(told, small, values[0])
        if step.op == "tensor":
            self._folded(step, told, small)
        guesses = []
        for value, beside in zip(step.outs, other.outs, strict=True):
            shape, less = self._original.shapes[value], self._small.shapes[beside]
            guess = self._kept(step, value, shape, less, values) if kept is None else kept
            guesses.append(derived(shape, guess))
        written: dict[str, Any] = {"op": step.op, "in": ins, "out": [], "from": step.source}
        if told:
            written["with"] = told
        if differ := {key: each for key, each in small.items() if told.get(key) != each}:
            written["small"] = differ
        made = self._checker.derive(written, guesses)
        for result, value, beside in zip(made, step.outs, other.outs, strict=False):
            if result.small != self._small.shapes[beside]:
                raise NoCertificateError(
                    f"{step.source}: the small model's result is {self._small.shapes[beside]}, "
                    f"and what is kept is {result.small}"
                )
            self._at[value] = len(self._claims)
            written["out"].append(len(self._claims))
            self._checker.values[len(self._claims)] = result
            self._claims.append(self._claim(result))
        self._steps.append(written)

    def _claim(self, value: "Value") -> dict[str, Any]:
        """What a certificate says of a value: what is kept, and what is known of the rest."""
        claim: dict[str, Any] = {"shape": list(value.shape)}
        for axis, kept in value.kept.items():
            claim.setdefault("kept", {})[str(axis)] = self._set(kept)
            if value.known.size == 1 and np.isnan(value.known).all():
                continue  # nothing is known
            gone = value.gone(axis)
            zero = ~_any(value.known, axis, value.shape[axis])[gone]
            constant = zero
            if not zero.all():
                constant = ~_any(np.isnan(value.known), axis, value.shape[axis])[gone]
            for what, flags in (("zero", zero), ("constant", constant & ~zero)):
                if flags.any():
                    claim.setdefault(what, {})[str(axis)] = self._set(gone[flags])
        return claim

    def _set(self, indices: Any) -> int:
        """The number of a set of indices, which the certificate writes down once."""
        found = self._sets.setdefault(indices.tobytes(), len(self._sets))
        if found == len(self._checker.sets):
            self._checker.sets.append(indices)
        return found

    def _folded(self, step: Step, told: dict[str, Any], small: dict[str, Any]) -> None:
        """Whether a bias has taken up constants, so that it is no part of the original's."""
        name = told["name"]
        before, now = self._numbers[0].get(name), self._numbers[1][name][1]
        if before is None:
            told["fold"] = small["fold"] = "gained"
        elif now.ndim == 1 and now.dtype.kind == "f":
            kept = self._kept_of_tensor(step.outs[0])
            if not np.array_equal(before[1][kept.get(0, slice(None))], now):
                told["fold"] = small["fold"] = "changed"

    def _over(self, told: dict[str, Any], small: dict[str, Any], value: "Value") -> None:
        """Say which indices are left of what a norm runs over."""
        cut = {
            str(axis): self._set(value.kept[axis]) for axis in told["axes"] if axis in value.kept
        }
        if cut:
            told["over"] = small["over"] = cut
            small["size"] = told["size"]  # what is left is as long as is kept

    def _kept_of_tensor(self, value: int) -> Kept:
        return _cut(self._plan.kept(self._original.recorded[value]), self._original.shapes[value])

    def _kept(
        self,
        step: Step,
        value: int,
        shape: Sequence[int],
        small: Sequence[int],
        values: Sequence["Value"],
    ) -> Kept:
        """Which indices are kept of a value, where no rule says it."""
        if step.op == "tensor":
            return self._kept_of_tensor(value)
        if tuple(shape) == tuple(small):
            return {}
        return self._arrived(values, step.told["moves"], shape) if step.op == "move" else {}

    def _arrived(self, values: Sequence["Value"], moves: Any, shape: Sequence[int]) -> Kept:
        """The indices at which anything that is kept arrives."""
        from prune_verify.vocabulary import AXIAL, moved

        if [name for name, *_ in moves] == ["permute"]:
            before = values[0].kept
            return {new: before[old] for new, old in enumerate(moves[0][1]) if old in before}
        ndim, axial = len(values[0].shape), {name for name, *_ in moves} <= AXIAL
        looked = {axis for _, axis, *_ in moves} if axial else {*range(ndim)}
        free = [axis for axis in range(ndim) if axis not in looked]
        kept = {axis: values[0].kept[axis] for axis in free if axis in values[0].kept}
        masks = []
        for value in values:
            mask = np.zeros(value.across(free).shape, bool)
            whole = [value.at(axis) if axis in looked else [0] for axis in range(ndim)]
            mask[np.ix_(*whole)] = True
            masks.append(mask)
        arrived = moved(masks, moves)
        for axis in range(len(shape)):
            if axis not in free:
                others = tuple(other for other in range(len(shape)) if other != axis)
                kept[axis] = np.flatnonzero(arrived.any(others))
        return _cut(kept, shape)

    def _wanted(self, value: int, step: Step, met: Sequence["Value"]) -> Kept:
        """The indices of an open value that a step can do with: those of what it meets."""
        shape, small = self._sizes(value)
        recorded = self._original.recorded.get(value)
        known = {}
        if recorded is not None and recorded in self._plan.labelling.flow.values:
            known = self._plan.kept_of_value(recorded)
        kept = {}
        for axis in (axis for axis in range(len(shape)) if shape[axis] != small[axis]):
            back = axis - len(shape)
            if step.op == "matmul" and back == -1 and value == step.ins[0]:
                back = -2  # the rows of the other factor
            found = [other.kept.get(back + len(other.shape)) for other in met]
            found = [*found, known.get(axis), np.arange(small[axis])]
            kept[axis] = next(k for k in found if k is not None and len(k) == small[axis])
        return kept


_OVER = {"mean", "var", "var_mean", "normalise", "rms_normalise"}


def _cut(kept: Kept, shape: Sequence[int]) -> Kept:
    """Without the axes of which all is kept."""
    return {axis: each for axis, each in kept.items() if len(each) != shape[axis]}


def _any(known: Any, axis: int, length: int) -> Any:
    """For each index of an axis whether any number is not zero; leading axes first, for speed."""
    flags = known.any(tuple(range(axis)))
    return np.broadcast_to(flags.any(tuple(range(1, flags.ndim))), length)


def ranges_of(indices: Any) -> list[list[int]]:
    """Rising numbers as ranges: 0, 1, 5 is `[[0, 2], [5, 6]]`."""
    breaks = np.flatnonzero(np.diff(indices) != 1)
    starts, stops = indices[np.append(0, breaks + 1)], indices[np.append(breaks, -1)] + 1
    return [[int(start), int(stop)] for start, stop in zip(starts, stops, strict=True)]

"""The few things a rule can say about labels: tie, fix, pin, align, reduce, contract.

Everything that a rule says at once is *hard*: it is true whatever else turns out. Where two
group shapes overlap without being equal, either of two cuts could be meant; that choice is
*deferred* until all that is hard has been said, because most often it has decided the matter by
then (see ``Flow.deferred``).

    tie        x + y              position by position, both carry one label from here on
    fix        return x           what x carries stays
    pin        softmax(x, 1)      nothing goes along axis 1; other axes are not concerned
    align      x * scale[:, None] broadcast, then tie
    reduce     x.sum(1)           labels along axis 1 can go where they stand for zeros
    contract   x @ w              align by all letters of `ij,jk->ik`, then reduce j
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_speedup.engine.alignment import (
    TIED,
    Combine,
    ZeroTest,
    arranged,
    combined,
    follows,
    lengths_asked,
    letters_of,
    result_of,
    rows_of,
    side_by_side,
    without,
)
from prune_speedup.engine.clusters import align_clusters, varies
from prune_speedup.engine.graph import Call, Meta, Ref
from prune_speedup.engine.labels import FIXED, Array, Labels, among
from prune_speedup.engine.values import (
    CONSTANT,
    UNIFORM,
    UNKNOWN,
    ZERO,
    Group,
    Pending,
    Value,
    encode,
    mixed,
    spread,
)

if TYPE_CHECKING:
    from prune_speedup.engine.rules import Rules

__all__ = ["Flow", "Operand"]

Operand = Value | None


class Flow:
    """Values on their way through the calls, and the labels they share."""

    def __init__(
        self, labels: Labels, metas: Sequence[Meta], rules: "Rules", *, leaking: bool = False
    ) -> None:
        """Start with no values.

        Args:
            labels: The classes that everything is tied in.
            metas: Shape and type of every value of the graph.
            rules: What its operators do with labels.
            leaking: Whether a sum over what is not zero is only noted, in `leaks`, instead of
                keeping what it runs over.
        """
        self.leaks: list[tuple[int, int, Array]] | None = [] if leaking else None
        self.labels = labels
        self.tensors = 0
        self.metas = metas
        self.rules = rules
        self.values: dict[int, Value] = {}
        self.unknown: dict[str, str] = {}
        self.unruled: dict[int, str] = {}
        self.failed: dict[str, Exception] = {}
        self.live_norms: list[tuple[int, Array]] = []
        self.deferred: list[Callable[[], None]] = []
        self.preferences: list[Callable[[], None]] = []
        self.stale: dict[int, list[int]] = {}
        self.rectangles: list[Array] = []
        # What free axes have met, and their values, so that no other is taken for one of them.
        self._lengths: dict[tuple[int, int], tuple[Value, Array]] = {}
        self.position = 0
        self.where = ""

    # -- values ---------------------------------------------------------------------------------

    def get(self, argument: object) -> Value:
        """The value that an argument refers to; a plain number is a value without axes."""
        return self.values[argument.index] if isinstance(argument, Ref) else Value(())

    def result_shape(self, call: Call, position: int = 0) -> tuple[int, ...]:
        """The shape that one of a call's results really had."""
        index = call.outputs[position]
        return () if index is None else self.metas[index].shape

    def label_free(self, argument: Ref, axes: Collection[int]) -> Value:
        """Give labels of its own to every one of these axes that is free.

        That is for an axis of copies on its way into an axis with other things, where it would no
        longer be known to be as long as its neighbours need it.
        """
        value = self.get(argument)
        free = [axis for axis in sorted(axes) if axis in value.free and value.shape[axis] > 1]
        if not free:
            return value
        made = [
            Group(spread(encode(self.labels.new(value.shape[at]), value.state), at, value.shape))
            for at in free
        ]
        value = replace(value, groups=(*value.groups, *made), free=value.free - {*free})
        self.values[argument.index] = value
        return value

    def after(self, group: Group, written: Value) -> Group:
        """A group of a value with what is known of it once this was written to some of it."""
        labels = self.labels.find(group.compact())
        for other in written.groups:
            if np.array_equal(self.labels.find(other.compact()).ravel(), labels.ravel()):
                return group.with_states(
                    mixed(np.maximum(group.states(), other.states().reshape(labels.shape)))
                )
        return group.with_states(UNKNOWN)

    def owned(self, labels: Array) -> bool:
        """Whether a parameter or a buffer has any of these, and could lose it."""
        for some in (labels.ravel()[:1], labels):  # most often the first one tells
            roots = self.labels.find(some)
            if np.count_nonzero((roots < self.tensors) & ~self.labels.is_fixed(roots)):
                return True
        return False

    def begin(self, call: Call, position: int) -> None:
        """Remember which call is being looked at, for the messages."""
        self.position = position
        self.where = f"{call.name} in {call.module or 'the model'}"

    # -- what is true of one value --------------------------------------------------------------

    def fix(self, labels: Array, why: str) -> None:
        """Nothing with these labels can be removed."""
        if self.labels.settled:
            return
        self.labels.fix(labels, f"{why} ({self.where})" if self.where else why)

    def fix_value(self, value: Value, why: str) -> None:
        """Nothing that this value carries can be removed."""
        for group in value.groups:
            self.fix(group.compact(), why)
        self.settle(value, why)

    def fix_others(self, value: Value, known: Sequence[Array]) -> None:
        """Fix what a value that is shown on request has and the rest of the model has not.

        Its hidden states are as wide as it is. Classes that only an auxiliary head knows, which
        runs when asked for, are a result.
        """
        roots = np.unique(self.labels.find(np.concatenate(known))) if known else np.array([], int)
        for group in value.groups:
            labels = group.compact().ravel()
            own = labels[~among(self.labels.find(labels), roots)]
            if own.size:
                self.fix(own, "the model returns it when it is asked")
        self.settle(value, "the model returns it when it is asked")

    def settle(self, value: Value, why: str) -> None:
        """A pending normalisation goes somewhere that a normalisation does not go."""
        for labels, _ in value.pending:
            self.fix(labels, f"a mean over these indices is used for more than normalising: {why}")

    def pin(self, value: Value, axis: int, why: str) -> None:
        """No single index along this axis can go.

        A group that runs along other axes too keeps those: its labels become equal along the
        pinned one. A group of this axis alone is fixed.
        """
        group = value.group_at(axis)
        if group is not None:
            self.pin_labels(group.compact(), axis % value.ndim, why)

    def pin_labels(self, labels: Array, axis: int, why: str) -> None:
        """`pin` for an array of labels.

        [1 2 3] is fixed. Of [[1 2] [3 4]], pinned along axis 0, whole columns can still go: 3 is
        tied to 1, and 4 to 2.
        """
        if labels.shape[axis] == 1 or self.labels.settled:
            return
        if labels.size == labels.shape[axis]:
            self._pin_line(labels.ravel(), why)
            return
        roots = self.labels.find(labels)
        if varies(roots, axis) and all(
            other == axis or not varies(roots, other) for other in range(roots.ndim)
        ):
            self.fix(roots, why)
        elif varies(roots, axis):
            self.labels.tie(labels, labels.take([0], axis), why)

    def _pin_line(self, labels: Array, why: str) -> None:
        """`pin` for labels of one axis: of one class they may go, all at once, and else stay."""
        roots = self.labels.find(labels)
        if np.count_nonzero(roots != roots[0]):
            self.fix(roots, why)

    def pin_all(self, value: Value, axes: Sequence[int], why: str) -> None:
        """`pin` each of these axes."""
        if value.groups and not self.labels.settled:
            for axis in axes:
                self.pin(value, axis, why)

    # -- several values at the same positions ----------------------------------------------------

    def align(
        self,
        operands: Sequence[Value],
        shape: Sequence[int],
        zero: ZeroTest,
        *,
        summed: frozenset[int] = frozenset(),
        known: Combine | None = None,
    ) -> Value:
        """Operands that meet position by position, each broadcast to `shape`.

        Args:
            operands: Their shapes are broadcast from the right, as torch does.
            shape: The shape of the result.
            zero: Whether the result is zero where those operands marked true are zero.
            summed: Axes that a contraction sums over afterwards.
            known: What is known of the result where this is known of the operands, unless it is at
                most what is known of the weakest one.
        """
        shape = tuple(shape)
        known = known or (lambda states: result_of(states, zero))
        places = tuple([range(len(shape) - each.ndim, len(shape)) for each in operands])
        out = self._align_rows(operands, places, shape, known)
        if out is None:
            out = align_clusters(self, operands, shape, known, summed)
        if not self.labels.settled:  # of those that are, nothing is left to be said
            out.pending = self._pending(operands)
            self._lengthen(operands, out)
        return out

    def _align_rows(
        self,
        operands: Sequence[Value],
        places: tuple[Sequence[int], ...],
        shape: tuple[int, ...],
        known: Combine,
    ) -> Value | None:
        """`align` where every group has an axis of its own: then each axis is looked at alone.

        In `x (8, 4) + bias (4,)` it is one row along axis 1, of the labels of `x` and of the bias.

        Args:
            operands: What meets.
            places: For each operand the axes of the result that its own are.
            shape: That of the result.
            known: As for `align`.

        Returns:
            The result, or `None` where this is not so simple.
        """
        sizes = tuple([(each.shape, each.free) for each in operands])
        lengths = lengths_asked(sizes, places, shape)
        rows = None if lengths is None else rows_of(operands, places)
        if lengths is None or rows is None:
            return None
        asked, free = lengths
        groups: list[Group] = []
        for axis, row in rows.items():
            present = [group for group in row if group is not None]
            if not self.labels.settled:
                if any(group is None and axis in asked[at] for at, group in enumerate(row)):
                    for each in present:
                        self._pin_line(each.line, TIED)
                self._tie_lines([group.line for group in present])
            states = combined(
                [
                    operands[at].state if group is None else group.known
                    for at, group in enumerate(row)
                ],
                known,
            )
            first = present[0]
            if _has_uniform(states) and not all(follows(group, first) for group in present):
                states = side_by_side(states)
            groups.append(Group.along(axis, first.line, states, shape))
        return Value(shape, tuple(groups), free)

    def _tie_lines(self, lines: Sequence[Array]) -> None:
        """Tie lines of labels to the first of them, all at once."""
        first = lines[0]
        others = [line for line in lines if line is not first]
        if others:
            self.labels.tie(first, others[0] if len(others) == 1 else np.array(others), TIED)

    def _lengthen(self, operands: Sequence[Value], out: Value) -> None:
        """Let a free axis be as long as all that it meets, wherever its tensor is used.

        Zeros of `(heads, 5, 7)` are added to the scores of two layers. Each layer could lose other
        heads, but the zeros are one tensor, so that both have to lose as many. What is added to
        an input besides cannot lose any.
        """
        for operand in operands:
            for axis in operand.free:
                place = axis + out.ndim - operand.ndim
                met = out.group_at(place)
                if operand.shape[axis] == 1 or place in out.free or (met and len(met.axes) > 1):
                    continue
                labels = met.compact().ravel() if met else constant(1)
                _, before = self._lengths.setdefault((id(operand), axis), (operand, labels))
                if before is not labels:
                    self.labels.tie(before, labels, "one tensor is as long in all of its uses")

    def _pending(self, operands: Sequence[Value]) -> tuple[Pending, ...]:
        """Means that have not yet met again what they were taken over.

        Each once: in `z * (1 - z)` both operands come from the same mean, and a chain of these
        would double the list at every step.
        """
        if not any(operand.pending for operand in operands):
            return ()
        waiting = {
            (id(each.labels), each.inverse): each
            for operand in operands
            for each in operand.pending
        }
        return tuple(each for each in waiting.values() if not self.is_home(each, operands))

    def is_home(self, pending: Pending, operands: Sequence[Value]) -> bool:
        """Whether what a mean was taken over is among these."""
        find = self.labels.find
        return any(
            among(find(group.line), find(pending.labels)).any()
            for operand in operands
            for group in operand.groups
        )

    # -- fewer axes ------------------------------------------------------------------------------

    def reduce(
        self, value: Value, axes: Sequence[int], *, keep: bool, kind: str, why: str = "reduced"
    ) -> Value:
        """Run over some axes.

        Args:
            value: What is reduced.
            axes: The axes that go.
            keep: Whether they stay with length one.
            kind: "sum" is exact where removed labels are zero; "mean" is a normalisation over
                what is left; anything else keeps all it runs over.
            why: For the report.
        """
        over = {axis % value.ndim for axis in axes} if value.ndim else set()
        pending = list(value.pending)
        groups: list[Group] = []
        for group in value.groups:
            # Channels x places, averaged over places: a channel can go, one place of one channel
            # cannot, so the labels are tied along the axes that go and kept along those that stay.
            inside = over.intersection(group.axes)
            outside = set(group.axes) - inside
            if inside and (outside or kind == "other"):
                for axis in inside:
                    self.pin_labels(
                        group.compact(), axis, f"{why} over a part of what it is cut by"
                    )
            elif inside and kind == "sum":
                self._sum_over(group, why)
            elif inside:
                pending.append(Pending(group.line))
                self.live_norms.append((self.position, pending[-1].labels))
            if outside:
                left = group.only(outside)
                # A sum of equal numbers depends on how many there are.
                groups.append(left.at_least(CONSTANT) if kind == "sum" else left)
        return without(value, groups, over, keep=keep, pending=tuple(pending))

    def _sum_over(self, group: Group, why: str) -> None:
        """A sum only loses what adds nothing to it."""
        labels, states = group.line, group.known
        if isinstance(states, int):
            found = {states: labels}
        else:
            found = {state: labels[states == state] for state in (UNIFORM, CONSTANT, UNKNOWN)}
        for state, those in found.items():
            if state != ZERO and those.size:
                if self.leaks is None:
                    self.fix(those, f"{why} with something in it that is not zero")
                else:
                    self.leaks.append((self.position, state, those))

    def contract(self, *operands_and_equation: Any) -> Value:
        """A product summed over axes, in einsum notation: `contract(left, right, "bij,bjk->bik")`.

        It is an elementwise product in the space of all the letters, then a sum over those that
        do not return. Nothing is computed: the arrays are stride 0 along what they lack.

        Args:
            operands_and_equation: The values, and last the equation.
        """
        *operands, equation = operands_and_equation
        terms, space, places, kept = letters_of(equation)
        sizes = [1] * len(space)
        for axes, operand in zip(places, operands, strict=True):
            for axis, size in zip(axes, operand.shape, strict=True):
                sizes[axis] = max(size, sizes[axis])
        product = self._align_rows(operands, places, tuple(sizes), _product)
        over = range(kept, len(space))
        if product is not None:
            product.pending = () if self.labels.settled else self._pending(operands)
        else:
            each = zip(operands, terms, strict=True)
            lifted = [arranged(operand, term, space) for operand, term in each]
            product = self.align(lifted, sizes, any, summed=frozenset(over))
        return self.reduce(product, over, keep=False, kind="sum", why="summed")


def _product(states: Sequence[int]) -> int:
    """What is known of a product: zero where any of its factors is."""
    return ZERO if ZERO in states else max(states)


def _has_uniform(states: Array | int) -> bool:
    if isinstance(states, int):
        return states == UNIFORM
    return bool(np.count_nonzero(states == UNIFORM))


def constant(size: int) -> Array:
    """Labels for indices that always stay."""
    return np.full(size, FIXED, dtype=np.int64)

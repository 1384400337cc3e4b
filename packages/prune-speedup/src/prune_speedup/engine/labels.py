"""Integer labels and which of them are the same: a union-find that works on whole arrays.

A convolution's channels and those of the normalisation behind it have labels of their own until
the call that makes them meet ties them. What is true of one is true of the other from then on:

    >>> labels = Labels()
    >>> channels, scale = labels.new(3), labels.new(3)
    >>> labels.tie(channels, scale)
    >>> labels.fix(channels[:1], "the model returns it")
    >>> labels.is_fixed(scale).tolist()
    [True, False, False]
    >>> labels.reason(int(scale[0]))
    'the model returns it'
"""

import numpy as np
import numpy.typing as npt

__all__ = ["FIXED", "Array", "Labels", "Settled", "among", "equal"]

Array = npt.NDArray[np.int64]

FIXED = 0
"""The label of whatever can never be removed."""


def among(labels: npt.ArrayLike, wanted: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which labels are among some others: by a table, for neither has to be sorted then."""
    left, right = (np.asarray(each, dtype=np.int64) for each in (labels, wanted))
    table = np.zeros(1 + int(max(left.max(initial=0), right.max(initial=0))), dtype=np.bool_)
    table[right] = True
    found: npt.NDArray[np.bool_] = table[left]
    return found


def equal(left: Array, right: Array) -> bool:
    """Whether two arrays of one shape are the same.

    Of the few labels that a call has, numpy's functions take ten times as long to be called as to
    look, and bytes are compared at once. Copies of many labels would need fresh memory each time.
    """
    if left.size > _FEW:
        return not np.count_nonzero(left != right)
    return left.tobytes() == right.tobytes()


_FEW = 4096


class Labels:
    """Labels, tied into classes; a class is free or fixed.

    There is no loop over labels anywhere: a call ties, fixes or looks up an array at once.
    """

    settled = False
    """Whether all that is said of them has been said before."""

    def __init__(self) -> None:
        """Begin with the fixed label alone."""
        self._parent: Array = np.zeros(1, dtype=np.int64)
        self._fixed = np.ones(1, dtype=np.bool_)
        self._reasons: list[tuple[Array, str]] = []
        self._roots: Array | None = None
        self._first: Array = np.empty(0, dtype=np.int64)
        self._told: tuple[tuple[int, int], npt.NDArray[np.int32]] | None = None
        self.changes = 0

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, count: int) -> Array:
        """`count` labels that nothing else carries."""
        start = len(self._parent)
        fresh: Array = np.arange(start, start + count, dtype=np.int64)
        if start == 1:
            self._first = fresh
        self._roots = None
        self._parent = np.concatenate([self._parent, fresh])
        self._fixed = np.concatenate([self._fixed, np.zeros(count, dtype=np.bool_)])
        return fresh

    def find(self, labels: Array) -> Array:
        """The representative of the class of each label."""
        roots: Array = self._parent[labels]
        above: Array = self._parent[roots]
        if equal(above, roots):
            return roots
        # A parent is never larger than its child (`tie` lets the smallest win), so each round
        # climbs, and the climb ends.
        while not equal(above, roots):
            roots, above = above, self._parent[above]
        # Next time the way is one step long.
        self._parent[labels] = roots
        return roots

    def is_fixed(self, labels: Array) -> npt.NDArray[np.bool_]:
        """Whether each label belongs to a class that stays."""
        return self._fixed[self.find(labels)]

    def classes(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """The representative of every label there is, and whether it stays: to be looked at only.

        All that comes after the labels asks for them, so they are kept until more is tied.
        """
        if self._roots is None:
            roots: Array = self._parent[self._parent]
            while not equal(roots, self._parent):
                self._parent, roots = roots, roots[roots]
            self._roots = self._parent  # every label is told its class at once
        return self._roots, self._fixed[self._roots]

    def tie(self, left: Array, right: Array, why: str = "") -> None:
        """Make the labels at the same positions the same; shapes broadcast.

        A label tied to the fixed one becomes fixed but keeps its own class, so that everything
        that cannot be removed does not melt into one.
        """
        a, b = self.find(left), self.find(right)
        differ = a != b
        if not np.count_nonzero(differ):
            return  # most often it has been said before
        low, high = np.minimum(a, b)[differ], np.maximum(a, b)[differ]
        against_fixed = low == FIXED
        if np.count_nonzero(against_fixed):
            self.fix(high[against_fixed], why)
            low, high = low[~against_fixed], high[~against_fixed]
        # Invariant: the pairs (low, high) are roots, different ones, that are still to be tied. Of
        # (2, 5) and (3, 5), 5 can have one parent: it gets 2 or 3. The other pair is looked at
        # again by its roots, which are 3 and 2 then. Each round gives every root that was some
        # pair's larger one a parent, so there are few. The smallest of a class is its root at the
        # end, whatever the order.
        while len(low):
            self.changes += 1
            if self._roots is not None:  # somebody may look at them still
                self._roots, self._parent = None, self._parent.copy()
            self._parent[high] = low
            stays = self._fixed[low] | self._fixed[high]
            if np.count_nonzero(stays):
                self._fixed[self.find(low[stays])] = True
                self._fixed[self.find(high[stays])] = True
            if equal(self._parent[high], low):
                return
            a, b = self.find(low), self.find(high)
            differ = a != b
            low, high = np.minimum(a, b)[differ], np.maximum(a, b)[differ]

    def fix(self, labels: Array, why: str = "") -> None:
        """Say that these can never be removed, and why."""
        roots = self.find(labels)
        free = ~self._fixed[roots]
        if not np.count_nonzero(free):
            return
        self.changes += 1
        fresh = roots[free]
        self._fixed[fresh] = True
        self._reasons.append((fresh, why))

    def reasons(self, labels: Array) -> list[str]:
        """Why the class of each label is fixed; empty where it is not."""
        told = [*(why for _, why in self._reasons), ""]
        return [told[at] for at in self._first_reasons()[self.find(labels)].tolist()]

    def reason(self, label: int) -> str:
        """Why the class of a label is fixed; the first thing that fixed it."""
        return self.reasons(np.array([label]))[0]

    def _first_reasons(self) -> npt.NDArray[np.int32]:
        """For each representative the number of the reason that came first, remembered."""
        moment = self.changes, len(self)
        if self._told is None or self._told[0] != moment:
            number = np.full(len(self), len(self._reasons), dtype=np.int32)  # half of the memory
            for at, (fixed, _) in enumerate(self._reasons):
                roots = self.find(fixed)
                number[roots] = np.minimum(number[roots], at)
            self._told = moment, number
        return self._told[1]


class Settled(Labels):
    """The labels of an earlier run, handed out in the same order: their classes stand."""

    settled = True

    def __init__(self, earlier: Labels) -> None:
        """Look up each class once.

        Args:
            earlier: All of the labels.
        """
        super().__init__()
        self._settled, self._stays = earlier.classes()
        self._first = earlier._first
        self._count = 1

    def __len__(self) -> int:
        return self._count

    def new(self, count: int) -> Array:
        """The next labels."""
        self._count += count
        if self._count == 1 + count == 1 + len(self._first):
            return self._first  # those of all tensors, which are many
        return np.arange(self._count - count, self._count, dtype=np.int64)

    def find(self, labels: Array) -> Array:
        """The representative of the class of each label."""
        return self._settled[labels]

    def classes(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """The representative of every label of the earlier run, and whether it stays."""
        return self._settled, self._stays

    def is_fixed(self, labels: Array) -> npt.NDArray[np.bool_]:
        """Whether each label belongs to a class that stays."""
        return self._stays[labels]

    def tie(self, left: Array, right: Array, why: str = "") -> None:
        """Nothing: these are the same already."""

    def fix(self, labels: Array, why: str = "") -> None:
        """Nothing: these stay already."""

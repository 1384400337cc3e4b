"""What a value looks like to the engine: which of its axes carry which labels.

What a convolution of 3 channels makes, of shape (1, 3, 8, 8), has one group. Its codes have that
shape too, but only three of them are in memory: the strides are 0 along all other axes.

    axis      0   1   2   3
    labels    .   5   .   .        group.axes == (1,)
              .   6   .   .        group.compact().shape == (1, 3, 1, 1)
              .   7   .   .

Flattened to (1, 192), each label stands 64 times in a row along axis 1: 5 5 5 ... 6 6 6 ... 7 7 7.
So a linear layer behind it ties 64 of its columns to each channel. Where labels differ along two
axes at once, as along the heads and the features of a head, one group runs along both of them.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from prune_speedup.engine.labels import Array

__all__ = [
    "CONSTANT",
    "UNIFORM",
    "UNKNOWN",
    "ZERO",
    "Group",
    "Pending",
    "Value",
    "at_first",
    "encode",
    "expanded",
    "extended",
    "mixed",
    "one_of",
    "spread",
    "squeezed",
    "without_copies",
]


ZERO, UNIFORM, CONSTANT, UNKNOWN = 0, 1, 2, 3
"""What is known of the numbers at an index, the strongest first.

`ZERO`: all of them are zero. `UNIFORM`: wherever their label stands, they are one and the same
number, for any input of any size, as the bias of a normalisation is behind a masked convolution.
`CONSTANT`: no input has a part in them, but they may differ from place to place, or with the
input's size, as where a convolution that pads with zeros reads such a bias. `UNKNOWN`: all else.

What is known of a result is at most what is known of the weakest operand, so that states combine by
taking the largest.
"""

# Bits 60 and 61 of a code are the state, those below are the label: whoever reshapes, slices or
# gathers the codes moves both.
_SHIFT = 60
_LABEL = (1 << _SHIFT) - 1


class Group:
    """One label per position along one axis, or along several that can only be cut together.

    Most groups run along one axis. They are two lines, of labels and of what is known of the
    numbers there, and the codes are put together for whoever moves them about:

        Group.along(1, [5 6 7], ZERO, (1, 3, 8, 8))

    Attributes:
        shape: The shape of the value.
        axes: The axes along which the labels differ.
    """

    __slots__ = ("_codes", "_compact", "_known", "_line", "axes", "shape")

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    _codes: Array | None
    _compact: Array | None
    _line: Array | None
    _known: Array | int | None

    def __init__(self, codes: Array) -> None:
        """Look once along which axes the labels differ.

        Args:
            codes: Labels, each with what is known of the numbers there, in one integer, so that
                whatever moves the one moves the other. Shaped like the value, with stride 0 along
                every axis that makes no difference: an array of any size costs no more than its
                labels.
        """
        self.shape = shape = codes.shape
        found = [axis for axis, stride in enumerate(codes.strides) if stride and shape[axis] > 1]
        self.axes = tuple(found)
        self._codes = codes
        self._compact = self._line = self._known = None

    @classmethod
    def along(cls, axis: int, labels: Array, known: Array | int, shape: tuple[int, ...]) -> "Group":
        """Labels along one axis of a value.

        Args:
            axis: Counted from the front.
            labels: One for each index.
            known: What is known of the numbers at each index, or at all of them.
            shape: That of the value.
        """
        if len(labels) < 2 or 0 in shape:
            return cls(spread(encode(labels, known), axis, shape))
        made = cls.__new__(cls)
        made.shape, made.axes = shape, (axis,)
        made._line, made._known = labels, known
        made._codes = made._compact = None
        return made

    def at(self, axis: int, shape: tuple[int, ...]) -> "Group":
        """A group of one axis along an axis of another value."""
        return Group.along(axis, self.line, self.known, shape)

    @property
    def codes(self) -> Array:
        """Labels and what is known of the numbers there, shaped like the value."""
        if self._codes is None:
            small = encode(self.line, self.known).reshape(self._small())
            self._codes = expanded(small, self.shape)
        return self._codes

    @property
    def line(self) -> Array:
        """The labels, one behind the other."""
        if self._line is None:
            self._line = self.compact().ravel()
        return self._line

    @property
    def known(self) -> Array | int:
        """What is known of the numbers at each label of the line, or at all of them."""
        if self._known is None:
            assert self._codes is not None
            states = (without_copies(self._codes) >> _SHIFT).ravel()
            self._known = one_of(states)
        return self._known

    def compact(self) -> Array:
        """The labels, with every axis that makes no difference cut to length one."""
        if self._compact is None:
            if self._codes is None:
                self._compact = self.line.reshape(self._small())
            else:
                self._compact = without_copies(self._codes) & _LABEL
        return self._compact

    def states(self) -> Array:
        """What is known of the numbers, shaped as `compact`."""
        known, labels = self.known, self.compact()
        if isinstance(known, int):
            return np.full(labels.shape, known, dtype=np.int64)
        return known.reshape(labels.shape)

    def _small(self) -> list[int]:
        return [size if axis in self.axes else 1 for axis, size in enumerate(self.shape)]

    def told(self, known: Array | int) -> "Group":
        """The same labels with something else known of the numbers, along the line."""
        if 0 in self.shape:
            return self  # there is no number of which to know anything
        made = Group.__new__(Group)
        made.shape, made.axes = self.shape, self.axes
        made._line, made._compact, made._known = self.line, self._compact, known
        made._codes = None
        return made

    def with_states(self, states: Array | int) -> "Group":
        """The same labels with something else known of the numbers; shapes broadcast."""
        if isinstance(states, int):
            return self.told(states)
        if states.shape == self.compact().shape:
            return self.told(one_of(states.ravel()))
        return Group(expanded(encode(self.compact(), states), self.shape))

    def at_least(self, state: int) -> "Group":
        """The same labels, no more known than this of what is not zero."""
        known = self.known
        if isinstance(known, int):
            return self.told(state) if ZERO < known < state else self
        weaker = (known < state) & (known != ZERO)
        if not np.count_nonzero(weaker):
            return self
        return self.told(one_of(np.where(weaker, state, known)))

    def only(self, axes: Collection[int]) -> "Group":
        """The labels at index 0 of every other axis, with the least that is known along it."""
        others = tuple([axis for axis in self.axes if axis not in axes])
        if not others:
            return self
        labels, states = self.compact(), self.states()
        for axis in others:
            labels = labels.take([0], axis)
        codes = encode(labels, mixed(states.max(axis=others, keepdims=True)))
        return Group(expanded(codes, self.shape))


_EVERY, _FIRST = slice(None), slice(0, 1)


def without_copies(codes: Array) -> Array:
    """The same codes with length one along every axis that repeats them."""
    strides = codes.strides
    if all(strides):
        return codes
    return codes[tuple([_EVERY if stride else _FIRST for stride in strides])]


def expanded(codes: Array, shape: Sequence[int]) -> Array:
    """Codes repeated along axes of length one, and along new ones in front, without copying.

    numpy's own `broadcast_to` takes ten times as long; it is left what is not so simple.
    """
    shape, small = tuple(shape), without_copies(codes)
    lead = len(shape) - codes.ndim
    fits = codes.shape == shape[lead:] or (
        lead >= 0
        and all(old in (1, new) for old, new in zip(codes.shape, shape[lead:], strict=True))
    )
    if not fits or not small.flags.c_contiguous:
        return np.broadcast_to(codes, shape)
    steps = [step if size > 1 else 0 for step, size in zip(small.strides, small.shape, strict=True)]
    return np.ndarray(shape, np.int64, small, 0, (*[0] * lead, *steps))


def at_first(codes: Array, axes: Iterable[int]) -> Array:
    """The codes at index 0 of some axes, which stay with length one."""
    where = [_EVERY] * codes.ndim
    for axis in axes:
        where[axis] = _FIRST
    return codes[tuple(where)]


def mixed(states: Array) -> Array:
    """What is known where numbers of these kinds stand side by side."""
    # Two channels may each be one number all over, without its being the same number.
    return np.where(states == UNIFORM, CONSTANT, states)


def one_of(states: Array) -> Array | int:
    """What is known of all of them at once, where it is the same of each."""
    if not states.size:
        return states
    first = states.item(0)
    return states if np.count_nonzero(states != first) else first


def _largest(known: Array | int, state: int) -> Array | int:
    return max(known, state) if isinstance(known, int) else one_of(np.maximum(known, state))


def encode(labels: Array, states: Array | int) -> Array:
    """Labels and what is known, in one integer each."""
    codes: Array = np.ascontiguousarray(labels | (states << _SHIFT))
    return codes


class Pending(NamedTuple):
    """Labels that a mean, a variance or the like ran over.

    Attributes:
        labels: What it ran over.
        inverse: Whether its inverse has been taken, as a norm does before it multiplies.
    """

    labels: Array
    inverse: bool = False


@dataclass(slots=True)
class Value:
    """A tensor as the engine sees it.

    An axis is *labelled* when it belongs to a group, *free* when every index along it holds a
    copy of the same thing (an expanded axis, a tensor of zeros), and *fixed* otherwise.

    Attributes:
        shape: The sizes.
        groups: Label arrays; no two of them share an axis.
        free: The free axes.
        constant: Whether no input has a part in it, wherever no group says otherwise.
        zero: Whether it is zero, wherever no group says otherwise.
        pending: What means and variances in it ran over. That stays removable as long as the
            result is only subtracted from, or divides, what it was taken of: a normalisation.
    """

    shape: tuple[int, ...]
    groups: tuple[Group, ...] = ()
    free: frozenset[int] = frozenset()
    constant: bool = False
    pending: tuple[Pending, ...] = ()
    zero: bool = False

    @property
    def state(self) -> int:
        """What is known of the numbers wherever no group says more."""
        if self.zero:
            return ZERO
        if not self.constant:
            return UNKNOWN
        return UNIFORM if prod(self.shape) == 1 else CONSTANT

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def with_groups(self, groups: Iterable[Group]) -> "Value":
        """The same value with other groups."""
        return Value(self.shape, tuple(groups), self.free, self.constant, self.pending, self.zero)

    def at_least(self, state: int) -> "Value":
        """The same value, no more known than this of what is not zero."""
        return self.with_groups([group.at_least(state) for group in self.groups])

    def never_zero(self, state: int = CONSTANT) -> "Value":
        """The same value, of which nothing is known to be zero, and no more than this."""
        made = self.with_groups([g.told(_largest(g.known, state)) for g in self.groups])
        made.zero = False
        return made

    def group_at(self, axis: int) -> Group | None:
        """The group that this axis belongs to."""
        axis %= max(self.ndim, 1)
        for group in self.groups:
            if axis in group.axes:
                return group
        return None

    def any_size(self, axis: int) -> bool:
        """Whether nothing is asked of the other operand along this axis."""
        return self.shape[axis] == 1 or axis in self.free


def spread(labels: Array, axis: int, shape: tuple[int, ...]) -> Array:
    """Labels along one axis, expanded to a whole shape without using memory."""
    sizes = [1] * len(shape)
    sizes[axis] = len(labels)
    return expanded(labels.reshape(sizes), shape)


def squeezed(codes: Array) -> Array:
    """The same codes with stride 0 along every axis where they turn out not to differ."""
    small = without_copies(codes)
    for axis, size in enumerate(small.shape):
        if size > 1:
            one = at_first(small, (axis,))
            if not np.count_nonzero(small != one):
                small = one
    return expanded(small, codes.shape)


def extended(codes: Array, shape: Sequence[int]) -> Array:
    """Codes of another shape with as many axes, where they differ along no axis that changed."""
    return expanded(without_copies(codes), shape)

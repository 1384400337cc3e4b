"""What the masks leave of every unit: nothing, a constant, or something that is still needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Flags
from prune_speedup.engine.propagate import Labelling, Numbers, Zeros, propagate
from prune_speedup.engine.values import UNKNOWN

__all__ = ["Standing", "standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How the units of a model stand under its masks; flags are for labels, by their classes.

    Attributes:
        labelling: The model's labels.
        roots: The class of every label.
        masked: What could go, and is zero somewhere.
        closed: What is zero in every parameter that it is a slice of.
        constant: What some sum runs over although it holds a number other than zero, one in which
            no input has a part.
        used: What some sum runs over, with anything else in it.
        normed: What a layer normalisation runs over, without being closed.
        flow: What is known of every value; `None` where no masked unit leaves a constant.
    """

    labelling: Labelling
    roots: Array
    masked: Flags
    closed: Flags
    constant: Flags
    used: Flags
    normed: Flags
    flow: Flow | None

    @property
    def removable(self) -> Array:
        """The labels whose units only ever add zeros.

        A unit goes if every sum that runs over it finds it zero: its producers are zero, or its
        consumers ignore it. A unit that a norm runs over must be masked in each of its parameters,
        the norm's own included; then the norm over the live indices is what is meant.
        """
        return np.flatnonzero(self.masked & ~self.constant & ~self.used & ~self.normed)

    @property
    def constants(self) -> Flags:
        """Whether all that is left of a masked unit is a constant."""
        found: Flags = self.masked & self.constant & ~self.used & ~self.normed
        return found


_REMEMBERED = 3


def standing(labelling: Labelling, zeros: Zeros, numbers: Numbers | None = None) -> Standing:
    """Find out what is left of every unit, given which slices of parameters are zero.

    The labelling keeps the last few answers: masks are first closed, and then removed.

    Args:
        labelling: The model's labels.
        zeros: Which indices of its tensors hold nothing but zeros.
        numbers: What the numbers of constants are, if they have been looked at.
    """
    if numbers is not None:
        return _find(labelling, zeros, numbers)
    known: list[tuple[Zeros, Standing]] = labelling.standings
    for before, answer in known:
        if _same(before, zeros):
            return answer
    answer = _find(labelling, zeros)
    known.insert(0, (dict(zeros), answer))
    del known[_REMEMBERED:]
    return answer


def _same(one: Zeros, other: Zeros) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(zero, other[key]) for key, zero in one.items()
    )


def _find(labelling: Labelling, zeros: Zeros, numbers: Numbers | None = None) -> Standing:
    labels, graph = labelling.labels, labelling.graph
    roots, _ = labels.classes()
    masked, closed = _masked(labelling, zeros)
    none = np.zeros(len(labels), dtype=np.bool_)
    if not (masked & ~closed).any():
        return Standing(labelling, roots, masked, closed, none, none, none, None)
    # The masks do not reach all of some unit: a bias is left, or the next layer's columns. Follow
    # the numbers through the graph, to see whether any sum would miss what is left.
    flow = propagate(graph, labelling.flow.rules, zeros, labels, numbers).flow
    leaking = {True: none.copy(), False: none.copy()}
    for _, state, found in flow.leaks or ():
        leaking[state == UNKNOWN][roots[found]] = True
    normed = none.copy()
    for _, found in labelling.flow.live_norms:
        over = roots[found]
        normed[over[~closed[over]]] = True
    constant, used, normed = leaking[False][roots], leaking[True][roots], normed[roots]
    # What is known of every value takes memory, and is looked at only where constants are left.
    known = flow if numbers is not None or (masked & constant).any() else None
    return Standing(labelling, roots, masked, closed, constant, used, normed, known)


def _masked(labelling: Labelling, zeros: Zeros) -> tuple[Flags, Flags]:
    """Which labels could go and are zero somewhere, and which are zero wherever they stand."""
    roots, stays = labelling.labels.classes()
    standing, zero = [np.empty(0, np.int64)], [np.empty(0, np.bool_)]
    for value, columns in labelling.axes.items():
        for axis, column in enumerate(columns):
            if column is not None and value in labelling.graph.parameters:
                known = zeros.get((value, axis))
                standing.append(column)
                zero.append(np.zeros(len(column), np.bool_) if known is None else known)
    classes, is_zero = roots[np.concatenate(standing)], np.concatenate(zero)
    touched, closed = np.zeros_like(stays), ~stays
    touched[classes[is_zero]] = True
    closed[classes[~is_zero]] = False
    return ~stays & touched[roots], closed[roots]

"""Which units go, and what shape everything has once they are gone."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from prune_speedup.engine.graph import Ref
from prune_speedup.engine.labels import Array, among
from prune_speedup.engine.propagate import Labelling

__all__ = ["Flags", "Plan", "make_plan"]

Flags = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Plan:
    """Classes of labels to remove from a labelled graph.

    Attributes:
        labelling: What is being cut.
        removed: For every label whether its class goes.
    """

    labelling: Labelling
    removed: Flags
    _kept_of_tensor: dict[int, dict[int, Array]] = field(default_factory=dict, repr=False)
    _kept: dict[int, dict[int, Array]] = field(default_factory=dict, repr=False)
    _lines: dict[int, tuple[Array, Array | None]] = field(default_factory=dict, repr=False)
    _shapes: dict[int, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _read: set[int] = field(default_factory=set, repr=False)
    _sites: dict[Any, list[int]] = field(default_factory=dict, repr=False)

    def kept(self, value: int) -> dict[int, Array]:
        """`{axis: indices that stay}` for a parameter or buffer, of the axes that lose some."""
        if value in self._kept_of_tensor:
            return self._kept_of_tensor[value]
        kept: dict[int, Array] = {}
        for axis, column in enumerate(self.labelling.axes[value]):
            if column is not None and (stay := self._kept_along(column)) is not None:
                kept[axis] = stay
        self._kept_of_tensor[value] = kept
        return kept

    def kept_of_value(self, value: int) -> dict[int, Array]:
        """The same for any value of the graph."""
        if value in self._kept:
            return self._kept[value]
        kept: dict[int, Array] = {}
        for group in self.labelling.flow.values[value].groups:
            stay = self._kept_along(group.line)
            if stay is None:
                continue
            if len(group.axes) == 1:
                kept[group.axes[0]] = stay
                continue
            gone = self._gone(group.compact())
            for axis in group.axes:
                # An index goes if it goes wherever it stands along the other axes: of
                # [[gone gone] [stays stays]] row 0 does, and no column.
                others = tuple(other for other in range(gone.ndim) if other != axis)
                along = gone.all(axis=others)
                if along.any():
                    kept[axis] = np.flatnonzero(~along)
        self._kept[value] = kept
        return kept

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape that a value will have."""
        if value not in self._shapes:
            shape = list(self.labelling.graph.metas[value].shape)
            for axis, indices in self.kept_of_value(value).items():
                shape[axis] = len(indices)
            self._shapes[value] = tuple(shape)
        return self._shapes[value]

    @property
    def read(self) -> set[int]:
        """The values that something reads, or that the model returns."""
        if not self._read:
            graph = self.labelling.graph
            self._read.update(graph.outputs)
            for call in graph.calls:
                self._read.update(call.inputs())
        return self._read

    def calls_at(self, site: Any) -> list[int]:
        """The positions of the operators that a call of torch led to."""
        if not self._sites:
            for position, call in enumerate(self.labelling.graph.calls):
                if call.site is not None:
                    self._sites.setdefault(call.site, []).append(position)
        return self._sites.get(site, [])

    def fits(self, value: int, shape: tuple[int, ...]) -> bool:
        """Whether a value may have this shape; a free axis may have any length.

        So may every axis of a value without any index, which has no labels to tell by.
        """
        wanted = self.shape(value)
        if wanted == shape:
            return True
        free = self.labelling.flow.values[value].free
        if 0 in wanted and 0 in shape:
            return len(wanted) == len(shape)
        return len(wanted) == len(shape) and all(
            axis in free or old == new
            for axis, (old, new) in enumerate(zip(wanted, shape, strict=True))
        )

    def shape_of(self, argument: Any) -> tuple[int, ...]:
        """The shape that an argument of a call will have."""
        return self.shape(argument.index) if isinstance(argument, Ref) else ()

    def without(self, value: int, axes: Iterable[int]) -> "Plan":
        """A plan that leaves alone whatever this one takes from these axes of a value."""
        removed = self.removed.copy()
        wanted = set(axes)
        for group in self.labelling.flow.values[value].groups:
            if wanted & set(group.axes):
                roots = self.labelling.labels.find(group.compact().ravel())
                removed[among(self._roots(), roots)] = False
        return Plan(self.labelling, removed)

    def _kept_along(self, line: Array) -> Array | None:
        """The indices along a line of labels that stay; `None` if all do.

        Looked up once for all values that have this very line, which is most of a block.
        """
        known = self._lines.get(id(line))
        if known is None:
            gone = self._gone(line)
            stay = np.flatnonzero(~gone) if np.count_nonzero(gone) else None
            known = self._lines[id(line)] = line, stay  # the line, or its place might be another's
        return known[1]

    def _roots(self) -> Array:
        return self.labelling.labels.classes()[0]

    def _gone(self, labels: Array) -> Flags:
        gone: Flags = self.removed[labels]
        return gone


def make_plan(labelling: Labelling, chosen: Iterable[int]) -> Plan:
    """Plan to remove the classes of these labels, but never all of an axis.

    What is fixed stays whatever is asked. Where the choice would leave nothing of an axis, its
    first class stays too: a layer without features is no layer.
    """
    labels = labelling.labels
    everything, stays = labels.classes()
    wanted = np.zeros(len(labels), dtype=np.bool_)
    asked = chosen if isinstance(chosen, np.ndarray) else np.fromiter(chosen, dtype=np.int64)
    wanted[labels.find(asked)] = True
    wanted &= ~stays
    for columns in labelling.axes.values():
        for column in columns:
            if column is None or not wanted[first := everything[column[0]]]:
                continue
            if np.count_nonzero(wanted[everything[column]]) == len(column):
                wanted[first] = False
    return Plan(labelling, wanted[everything])

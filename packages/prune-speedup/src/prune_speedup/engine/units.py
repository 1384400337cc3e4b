"""Units: the smallest sets of slices, over all tensors, that can only be removed together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

import numpy as np

from prune_speedup.engine.labels import Array
from prune_speedup.engine.propagate import Labelling
from prune_speedup.engine.render import tree

__all__ = ["Slices", "Unit", "UnitGroup", "Units", "read_units"]

Slices = Mapping[str, Mapping[int, tuple[int, ...]]]
"""{tensor name: {axis: indices}}."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One set of slices that go or stay together.

    Attributes:
        label: Its number, good for `Units.unit`.
        slices: `{tensor name: {axis: indices}}`; a tied tensor is named once, by its first name.
    """

    label: int
    slices: Slices

    def __len__(self) -> int:
        return sum(len(indices) for axes in self.slices.values() for indices in axes.values())


@dataclass(frozen=True, slots=True)
class UnitGroup:
    """Interchangeable units: any one of them could go instead of any other.

    Attributes:
        name: The first tensor and axis that they cut, such as `layer1.0.conv1.weight[0]`.
        labels: The units' numbers, in the order in which they stand along that axis.
        axes: The tensors and axes that each of them cuts.
    """

    name: str
    labels: tuple[int, ...]
    axes: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(slots=True)
class Units:
    """The coupled units of a model.

    Attributes:
        groups: Units that can stand in for one another, in the order of the forward.
        axes: The class of every index along an axis, `{(tensor name, axis): classes}`, with 0
            where the index stays. Tied tensors are listed by their first name.
        aliases: Every name of a tensor that goes by several, to its first one.
        shapes: The shape of every tensor.
        unknown: Operators that no rule knows, and a module that used each.
        unread: Parameters and buffers that the forward did not use; they are left alone.
        labelling: What the units were read from.
    """

    groups: list[UnitGroup]
    axes: dict[tuple[str, int], Array]
    aliases: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    unknown: dict[str, str]
    unread: list[str]
    labelling: Labelling = field(repr=False)
    _index: "_Index | None" = field(default=None, repr=False)
    _values: dict[str, int] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    def __iter__(self) -> Iterator[Unit]:
        for group in self.groups:
            for label in group.labels:
                yield self.unit(label)

    def unit(self, label: int) -> Unit:
        """The unit of this number."""
        if self._index is None:
            self._index = _Index(self.axes)
        return Unit(label, self._index.slices(label))

    def why_fixed(self, name: str, axis: int, index: int = 0) -> str:
        """What keeps an index of an axis from being removable; empty when nothing does."""
        name = self.aliases.get(name, name)
        graph = self.labelling.graph
        if self._values is None:
            self._values = {names[0]: value for value, names in graph.tensors.items()}
        value = self._values.get(name)
        if value is None:
            return "the example does not use it"
        column = self.labelling.axes[value][axis]
        if column is None:
            return "the axis has length one, or is not of floating point"
        return self.labelling.labels.reason(int(column[index]))

    def tree(self) -> str:
        """A readable picture of the groups and of what they cut."""
        return tree(self)

    def __str__(self) -> str:
        return self.tree()


def read_units(labelling: Labelling) -> Units:
    """Gather classes of labels into units, and units that cut the same axes into groups."""
    graph, labels = labelling.graph, labelling.labels
    axes: dict[tuple[str, int], Array] = {}
    aliases: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    roots, stays = labels.classes()
    owned = np.zeros(len(labels), dtype=np.bool_)
    weights = [
        column
        for index, columns in labelling.axes.items()
        for column in columns
        if column is not None and index in graph.parameters
    ]
    owned[roots[np.concatenate([np.empty(0, np.int64), *weights])]] = True
    # A class that stands in buffers only, such as positions in a table, is no unit of weights.
    numbers = np.where(owned[roots] & ~stays, roots, 0)
    for index, columns in labelling.axes.items():
        first, *others = graph.tensors[index]
        aliases |= dict.fromkeys(others, first)
        shapes[first] = graph.metas[index].shape
        for axis, column in enumerate(columns):
            if column is not None and np.count_nonzero(classes := numbers[column]):
                axes[first, axis] = classes
    groups = _group(axes, len(labels))
    flow = labelling.flow
    return Units(groups, axes, aliases, shapes, flow.unknown, graph.unread, labelling)


class _Index:
    """Where each label stands, found by one sort instead of a search through every axis."""

    def __init__(self, axes: Mapping[tuple[str, int], Array]) -> None:
        self._axes = list(axes)
        sizes = [len(classes) for classes in axes.values()]
        labels = np.concatenate([np.empty(0, dtype=np.int64), *axes.values()])
        order = np.argsort(labels, kind="stable")
        self._labels = labels[order]
        self._axis = np.repeat(np.arange(len(sizes)), sizes)[order]
        self._place = np.concatenate([np.arange(size) for size in [0, *sizes]])[order]

    def slices(self, label: int) -> dict[str, dict[int, tuple[int, ...]]]:
        start, stop = np.searchsorted(self._labels, [label, label + 1])
        slices: dict[str, dict[int, tuple[int, ...]]] = {}
        found = zip(self._axis[start:stop].tolist(), self._place[start:stop].tolist(), strict=True)
        for number, places in groupby(found, key=itemgetter(0)):
            name, axis = self._axes[number]
            slices.setdefault(name, {})[axis] = tuple(place for _, place in places)
        return slices


def _group(axes: dict[tuple[str, int], Array], count: int) -> list[UnitGroup]:
    """Units with the same set of axes belong together; a set is told by the sum of random keys."""
    keys = np.random.default_rng(0).integers(1, 2**62, size=len(axes), dtype=np.int64)
    signature = np.zeros(count, dtype=np.int64)
    for key, classes in zip(keys, axes.values(), strict=True):
        signature[classes] ^= key  # once for each class, however often it stands along the axis
    signature[0] = 0
    # Written from the end, so that what stays is where each class is met first.
    met = np.concatenate([np.empty(0, np.int64), *axes.values()])
    first_seen = np.zeros(count, dtype=np.int64)
    first_seen[met[::-1]] = np.arange(len(met))[::-1]
    members = np.flatnonzero(signature)
    members = members[np.argsort(first_seen[members], kind="stable")]
    _, first, group = np.unique(signature[members], return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups are numbered as the forward comes to them
    group = np.argsort(order)[group]
    ends = np.cumsum(np.bincount(group, minlength=len(first)))
    found = np.split(members[np.argsort(group, kind="stable")], ends[:-1])
    numbers = np.zeros(count, dtype=np.int64)
    numbers[members] = group + 1
    cut: list[list[tuple[str, int]]] = [[] for _ in first]
    for axis, classes in axes.items():
        own = numbers[classes]
        one = own.item(0)
        # Most often an axis is all of one group.
        several = np.count_nonzero(own != one)
        for number in np.flatnonzero(np.bincount(own)).tolist() if several else [one]:
            if number:
                cut[number - 1].append(axis)
    return [
        UnitGroup(f"{where[0][0]}[{where[0][1]}]", tuple(labels.tolist()), tuple(where))
        for labels, where in zip(found, cut, strict=False)
    ]

"""Which channels go, and what makes up for them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prune_speedup.engine.mask_effects import Standing, standing
from prune_speedup.engine.plan import Plan as Cut
from prune_speedup.engine.plan import make_plan as make_cut
from prune_speedup.engine.propagate import Labelling
from prune_tf.speedup.constants import Reader, measured, readers, zeros_of
from prune_tf.speedup.recorded import Recorded
from prune_tf.speedup.reference import Values
from prune_tf.speedup.rules.registry import Rules

__all__ = ["Merge", "Plan", "make_plan"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Merge:
    """A slice of a layer's kernel that takes over the work of another: `into += share · gone`."""

    reader: Reader
    label: int
    into: int
    gone: int
    share: float


@dataclass
class Plan:
    """What becomes of a model.

    Attributes:
        recorded: The model.
        cut: What goes, and the shapes that everything has then, as the engine has it.
        folds: `(layer that reads constants, which of its channels go and are in its bias then)`.
        merges: Slices that take over for others.
        held: How many masked channels must stay, because their constant reaches the borders of
            a padded convolution.
    """

    recorded: Recorded
    cut: Cut
    folds: dict[int, tuple[Reader, Array]] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)
    held: int = 0

    @property
    def rules(self) -> Rules:
        """The rules, with what they remember of the model."""
        rules = self.cut.labelling.flow.rules
        assert isinstance(rules, Rules)
        return rules

    def kept_of(self, variable: Any) -> dict[int, Array]:
        """Return `{axis: places that stay}` of a variable, for the axes that lose some."""
        place = self.recorded.places.get(id(variable))
        return {} if place is None else self.cut.kept(place)


def make_plan(
    recorded: Recorded, labelling: Labelling, masks: Values, *, fold: bool = True
) -> Plan:
    """Choose every channel whose removal changes nothing.

    That is: wherever it is added up, it is multiplied by zeros, or it is a constant. A constant
    moves into the bias where it adds the same everywhere. Where it does not (the borders of a
    padded convolution), channels that reach the same places as constants are merged into one of
    them, whose weights become the sum of all, each scaled by its constant.

    Args:
        recorded: The model.
        labelling: What goes together in it.
        masks: Applied to its weights.
        fold: Whether constants may move; if not, only what is zero goes.
    """
    zeros = zeros_of(recorded, masks)
    found = standing(labelling, zeros)
    if not (found.masked & found.constant).any():
        return Plan(recorded, make_cut(labelling, found.removable))
    # Some of these may be zeros all the same, as behind a ReLU: the numbers tell.
    numbers = measured(recorded, labelling, masks)
    found = standing(labelling, zeros, numbers)
    reading = readers(recorded, found, numbers, zeros)
    obstacles, moving = _obstacles(found, reading, fold=fold)
    merges, merged, held = _merged(obstacles) if fold else ([], [], len(obstacles))
    cut = make_cut(labelling, [*found.removable, *moving, *merged])
    merges = [merge for merge in merges if cut.removed[merge.label]]
    return Plan(recorded, cut, _folds(reading, cut, merges), merges, held)


Places = list[tuple[Reader, int]]
"""Where a class is summed over in a way that no bias makes up for: a layer, and which channel."""


def _obstacles(
    found: Standing, reading: dict[int, Reader], *, fold: bool
) -> tuple[dict[int, Places], list[int]]:
    """Return the classes that are constants with what is in their way, and those with nothing."""
    assert found.flow is not None
    candidates = found.constants
    lost: set[int] = set()
    obstacles: dict[int, Places] = defaultdict(list)
    classes: set[int] = set()
    for position, _, labels in found.flow.leaks or ():
        roots = np.unique(found.roots[labels])
        roots = roots[candidates[roots]]
        reader = reading.get(position)
        classes.update(roots.tolist())
        if reader is None:
            lost.update(roots.tolist())
            continue
        for root in roots.tolist():
            places = np.flatnonzero(reader.columns == root)
            if np.isnan(reader.numbers[places]).any():
                lost.add(root)
            elif not (fold and reader.foldable):
                obstacles[root] += [(reader, int(at)) for at in places if reader.numbers[at]]
    still = {root: places for root, places in obstacles.items() if root not in lost and places}
    return still, [root for root in classes if root not in lost and root not in still]


def _merged(obstacles: dict[int, Places]) -> tuple[list[Merge], list[int], int]:
    """Return what takes over for what, which labels can go then, and how many have to stay."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for label, places in obstacles.items():
        layers = tuple(id(reader) for reader, _ in places)
        if len(set(layers)) == len(layers) and all(reader.mergeable for reader, _ in places):
            groups[layers].append(label)
    merges: list[Merge] = []
    merged: list[int] = []
    for labels in groups.values():
        # The largest constant makes the smallest factors, and so the smallest rounding errors.
        keeper = max(
            labels, key=lambda label: min(abs(r.numbers[at]) for r, at in obstacles[label])
        )
        for label in labels:
            if label == keeper:
                continue
            merged.append(label)
            for (reader, at), (_, into) in zip(obstacles[label], obstacles[keeper], strict=True):
                share = float(reader.numbers[at] / reader.numbers[into])
                merges.append(Merge(reader, label, into, at, share))
    return merges, merged, len(obstacles) - len(merged)


def _least(places: Places) -> float:
    return min(abs(float(reader.numbers[at])) for reader, at in places)


def _folds(
    reading: dict[int, Reader], cut: Cut, merges: list[Merge]
) -> dict[int, tuple[Reader, Array]]:
    """Which constants, of channels that go, are to be in the bias of a layer."""
    taken_over = {(id(merge.reader), merge.gone) for merge in merges}
    folds: dict[int, tuple[Reader, Array]] = {}
    for reader in reading.values():
        gone = cut.removed[reader.columns] & (np.nan_to_num(reader.numbers) != 0)
        places = [at for at in np.flatnonzero(gone).tolist() if (id(reader), at) not in taken_over]
        if places and reader.foldable:
            folds[id(reader.layer)] = (reader, np.array(places))
    return folds

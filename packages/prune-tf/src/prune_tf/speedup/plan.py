"""Which channels go, and what makes up for them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prune_speedup.engine.plan import Plan as Cut
from prune_speedup.engine.plan import make_plan as make_cut
from prune_speedup.engine.propagate import Labelling
from prune_tf.speedup.analysis import Analysis, Use

__all__ = ["Merge", "Plan", "make_plan"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Merge:
    """A slice of a weight that takes over the work of another: `into += share · gone`."""

    layer: Any
    variable: str
    axis: int
    label: int
    into: int
    gone: int
    share: float


@dataclass
class Plan:
    """What becomes of a model.

    Attributes:
        analysis: What the rules have found.
        cut: What goes, and the shapes that everything has then, as the engine has it.
        biases: `{layer: what is added to its bias}`.
        merges: Slices that take over for others.
        held: How many masked channels must stay, because their constant reaches the borders of
            a padded convolution.
    """

    analysis: Analysis
    cut: Cut
    biases: dict[int, Array] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)
    held: int = 0

    def kept(self, labels: Array) -> Array:
        """Return the places of an axis that stay."""
        return np.flatnonzero(~self.cut.removed[labels])


def make_plan(analysis: Analysis, labelling: Labelling, fold: bool = True) -> Plan:
    """Choose every channel whose removal changes nothing.

    That is: wherever it is added up, it is multiplied by zeros, or it is a constant. A constant
    moves into the bias where it adds the same everywhere. Where it does not (the borders of a
    padded convolution), channels that reach the same places as constants are merged into one of
    them, whose weights become the sum of all, each scaled by its constant.

    Args:
        analysis: What is known of the model.
        labelling: The same as the engine has it.
        fold: Whether constants may move; if not, only what is zero goes.
    """
    labels = analysis.labels
    # label → the places where it is added up in a way that a bias cannot make up for
    obstacles: dict[int, dict[tuple[int, int], float]] = defaultdict(dict)
    for number, use in enumerate(analysis.uses):
        immovable = np.isnan(use.constants) | (use.bias is None or not fold)
        places = np.flatnonzero(use.matters & (use.constants != 0) & immovable)
        roots = labels.find(use.labels)
        for place in places.tolist():
            obstacles[int(roots[place])][number, place] = float(use.constants[place])
    everything = labels.find(np.arange(len(labels)))
    free = ~np.isin(everything, [*obstacles])
    fixed = labels.is_fixed(np.array([*obstacles], dtype=np.int64))
    in_the_way = {
        label: at for (label, at), stays in zip(obstacles.items(), fixed, strict=True) if not stays
    }
    if fold:
        merges, merged, held = _merged(analysis, in_the_way)
    else:
        still = [at for at in in_the_way.values() if not np.isnan([*at.values()]).any()]
        merges, merged, held = [], [], len(still)
    cut = make_cut(labelling, [*np.flatnonzero(free).tolist(), *merged])
    merges = [merge for merge in merges if cut.removed[merge.label]]
    plan = Plan(analysis, cut, merges=merges, held=held)
    _fold(plan)
    return plan


def _merged(
    analysis: Analysis, obstacles: dict[int, dict[tuple[int, int], float]]
) -> tuple[list[Merge], list[int], int]:
    """Return what takes over for what, which labels can go then, and how many have to stay."""
    uses = analysis.uses
    merges: list[Merge] = []
    merged: list[int] = []
    held = 0
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for label, at in obstacles.items():
        numbers = tuple(number for number, _ in at)
        if any(np.isnan(constant) for constant in at.values()):
            continue
        held += 1
        if len(set(numbers)) == len(numbers) and all(uses[n].variable for n in numbers):
            groups[numbers].append(label)
    for labels in groups.values():
        # The largest constant makes the smallest factors, and so the smallest rounding errors.
        keeper = max(labels, key=lambda label: min(abs(c) for c in obstacles[label].values()))
        into = {number: (place, c) for (number, place), c in obstacles[keeper].items()}
        for label in labels:
            if label == keeper:
                continue
            merged.append(label)
            merges += [
                Merge(
                    uses[number].layer,
                    uses[number].variable or "",
                    uses[number].axis,
                    label,
                    into[number][0],
                    place,
                    constant / into[number][1],
                )
                for (number, place), constant in obstacles[label].items()
            ]
    return merges, merged, held - len(merged)


def _fold(plan: Plan) -> None:
    merged = {(id(m.layer), m.gone) for m in plan.merges}
    for use in plan.analysis.uses:
        gone = set(range(len(use.labels))) - set(plan.kept(use.labels).tolist())
        constants = {
            place: float(use.constants[place])
            for place in sorted(gone)
            if use.matters[place]
            and use.constants[place] != 0
            and (id(use.layer), place) not in merged
        }
        if constants:
            plan.biases[id(use.layer)] = _bias(use, constants)


def _bias(use: Use, constants: dict[int, float]) -> Array:
    assert use.bias is not None, "only what a bias can make up for is removed"
    return use.bias(constants)

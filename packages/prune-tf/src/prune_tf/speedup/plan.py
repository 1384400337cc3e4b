"""Which channels go, and what makes up for them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
        removed: The labels that go, by what stands for them.
        biases: `{layer: what is added to its bias}`.
        merges: Slices that take over for others.
        held: How many masked channels must stay, because their constant reaches the borders of
            a padded convolution.
    """

    analysis: Analysis
    removed: set[int]
    biases: dict[int, Array] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)
    held: int = 0

    def kept(self, labels: Array) -> Array:
        """Return the places of an axis that stay."""
        roots = self.analysis.labels.roots(labels)
        return np.flatnonzero([root not in self.removed for root in roots])


def make_plan(analysis: Analysis, fold: bool = True) -> Plan:
    """Choose every channel whose removal changes nothing.

    That is: wherever it is added up, it is multiplied by zeros, or it is a constant. A constant
    moves into the bias where it adds the same everywhere. Where it does not (the borders of a
    padded convolution), channels that reach the same places as constants are merged into one of
    them, whose weights become the sum of all, each scaled by its constant.

    Args:
        analysis: What is known of the model.
        fold: Whether constants may move; if not, only what is zero goes.
    """
    fixed = analysis.labels.fixed()
    known = {analysis.labels.find(label) for label in range(len(analysis.labels))}
    # label → the places where it is added up in a way that a bias cannot make up for
    obstacles: dict[int, dict[tuple[int, int], float]] = defaultdict(dict)
    for number, use in enumerate(analysis.uses):
        roots = analysis.labels.roots(use.labels)
        for place, (root, constant) in enumerate(zip(roots, use.constants, strict=True)):
            immovable = np.isnan(constant) or use.bias is None or not fold
            if use.matters[place] and constant != 0 and immovable:
                obstacles[int(root)][number, place] = float(constant)
    removed = known - set(fixed) - set(obstacles)
    plan = Plan(analysis, removed)
    in_the_way = {label: at for label, at in obstacles.items() if label not in fixed}
    if fold:
        _merge(plan, in_the_way)
    else:
        plan.held = sum(not np.isnan([*at.values()]).any() for at in in_the_way.values())
    _keep_one_of_each(plan)
    _fold(plan)
    return plan


def _merge(plan: Plan, obstacles: dict[int, dict[tuple[int, int], float]]) -> None:
    uses = plan.analysis.uses
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for label, at in obstacles.items():
        numbers = tuple(number for number, _ in at)
        if any(np.isnan(constant) for constant in at.values()):
            continue
        plan.held += 1
        if len(set(numbers)) == len(numbers) and all(uses[n].variable for n in numbers):
            groups[numbers].append(label)
    for labels in groups.values():
        # The largest constant makes the smallest factors, and so the smallest rounding errors.
        keeper = max(labels, key=lambda label: min(abs(c) for c in obstacles[label].values()))
        into = {number: (place, c) for (number, place), c in obstacles[keeper].items()}
        for label in labels:
            if label == keeper:
                continue
            plan.removed.add(label)
            plan.held -= 1
            plan.merges += [
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


def _keep_one_of_each(plan: Plan) -> None:
    """Leave every layer at least one channel; nothing can have none."""
    for places in plan.analysis.axes.values():
        for labels in places.values():
            if not len(plan.kept(labels)):
                stays = plan.analysis.labels.find(int(labels[0]))
                plan.removed.discard(stays)
                plan.merges = [merge for merge in plan.merges if merge.label != stays]


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

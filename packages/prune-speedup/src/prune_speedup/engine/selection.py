"""Groups of units that a pruner may choose from, why not from others, and which of them go.

Nothing in here knows a framework: scores are arrays, and what makes channels is a *producer*, a
module of torch or a layer of Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from math import gcd, lcm
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from prune_speedup.engine.families import alike
from prune_speedup.engine.labels import Array, among
from prune_speedup.engine.units import UnitGroup, Units

__all__ = [
    "Choice",
    "Coupled",
    "Family",
    "Producer",
    "Ranked",
    "Scored",
    "choice",
    "in_order",
    "rounded",
    "scored",
    "worst",
]


@dataclass(frozen=True, slots=True)
class Producer:
    """A module whose output channels belong to units.

    Attributes:
        name: The module's name.
        tensor: The name of its weight.
        classes: For each output channel the number of its unit, 0 where it must stay.
    """

    name: str
    tensor: str
    classes: Array


class Coupled(Protocol):
    """The units of a model, seen from the modules that make channels."""

    units: Units
    producers: dict[str, Producer]

    def of_group(self, group: UnitGroup) -> list[Producer]:
        """Return the modules that make the channels of a group."""

    def why_fixed(self, name: str) -> str:
        """Return why a module can lose none of its output channels."""


@dataclass(frozen=True, slots=True)
class Family:
    """Groups of units that lose as many as each other; most often it is one group.

    Attributes:
        groups: The groups, equally long.
        producers: For each group the modules that make its channels.
    """

    groups: list[UnitGroup]
    producers: list[list[Producer]]

    def __len__(self) -> int:
        return len(self.groups[0])

    @property
    def names(self) -> list[str]:
        """The modules that make the channels."""
        return [producer.name for each in self.producers for producer in each]

    def multiple(self, round_to: int) -> int:
        """How many units make a multiple of `round_to` channels in every module.

        A unit may be several channels of a module: one of each group, or a whole head.
        """
        widths = [
            width
            for group, producers in zip(self.groups, self.producers, strict=True)
            for width in _widths(producers, np.array(group.labels))
        ]
        return lcm(*(round_to // gcd(round_to, width) for width in widths))


def _widths(producers: Iterable[Producer], labels: Array) -> list[int]:
    return [int(among(each.classes, labels).sum()) // len(labels) for each in producers]


class Choice(NamedTuple):
    """What a pruner may choose from.

    Attributes:
        families: The families of which units may go.
        held: Families that stay because a module among them is not selected: {module: of whom}.
        spared: Modules that stay because nothing would be removed of what is masked.
        fixed: Modules that cannot lose a channel, and why.
    """

    families: list[Family]
    held: dict[str, str]
    spared: list[str]
    fixed: dict[str, str]


def choice(coupling: Coupled, selected: Collection[str], *, uniform: bool) -> Choice:
    """Sort out what may be pruned of the selected modules, and belongs together.

    Args:
        coupling: The model's units; the model must not be wrapped meanwhile.
        selected: The names of the modules that the pruner masks.
        uniform: Whether groups that are alike lose as many.
    """
    groups = coupling.units.groups
    found = Choice([], {}, [], {})
    for together in alike(coupling.units) if uniform else [[group] for group in groups]:
        family = Family(together, [coupling.of_group(group) for group in together])
        wanted = [name for name in family.names if name in selected]
        if not wanted:
            continue
        held = [name for name in family.names if name not in selected]
        held += [
            group.name
            for group, producers in zip(together, family.producers, strict=True)
            if not producers
        ]
        if held:
            found.held[wanted[0]] = held[0]
        else:
            found.families.append(family)
    for name in selected:
        if name not in coupling.producers:
            found.fixed[name] = coupling.why_fixed(name)
    return found


class Scored(NamedTuple):
    """The units of a group with what speaks for them.

    Attributes:
        labels: Their numbers, ascending.
        scores: The sum of the scores of each one's channels, over all that makes them.
        alive: Which of them are not masked yet.
    """

    labels: Array
    scores: npt.NDArray[np.float64]
    alive: npt.NDArray[np.bool_]


def scored(
    group: UnitGroup,
    producers: Iterable[Producer],
    scores: Callable[[str], npt.NDArray[np.float64]],
    alive: Callable[[str], npt.NDArray[np.bool_] | None],
) -> Scored:
    """Return what speaks for the units of a group.

    Args:
        group: The group.
        producers: What makes its channels.
        scores: Takes the name of a producer and returns a score for each of its channels.
        alive: The same for which of them are not masked yet; `None` means all.
    """
    labels = np.sort(np.array(group.labels))
    total, left = np.zeros(len(labels)), np.ones(len(labels), dtype=np.bool_)
    for producer in producers:
        channels = np.flatnonzero(among(producer.classes, labels))
        places = np.searchsorted(labels, producer.classes[channels])
        np.add.at(total, places, scores(producer.name)[channels])
        known = alive(producer.name)
        if known is not None:
            np.logical_and.at(left, places, known[channels])
    return Scored(labels, total, left)


def rounded(count: int, total: int, multiple: int) -> int:
    """Prune fewer, so that what is left is a multiple; never more."""
    left = total - count
    return total - min(total, left + -left % multiple)


class Ranked(NamedTuple):
    """A family of groups, from its least important unit to its most important.

    Attributes:
        scores: Of each unit, relative to the mean of its group; ascending.
        weights: How many weights a unit takes.
        cap: How many units may go at most.
    """

    scores: npt.NDArray[np.float64]
    weights: int
    cap: int


def in_order(groups: Sequence[Scored]) -> npt.NDArray[np.float64]:
    """Return relative scores, ascending, of groups that lose as many units as each other.

    A group's scores are divided by their mean, without signs, so that groups whose weights are
    small, or many, can be compared with others: [1, 3] and [10, 30] both become [0.5, 1.5]. The
    first to go of several groups go together, and count as the mean of theirs; what is masked
    already goes first.
    """
    ordered = []
    for _, scores, alive in groups:
        mean = np.abs(scores).mean()
        relative = scores / mean if mean else scores
        ordered.append(np.sort(np.where(alive, relative, -np.inf)))
    found: npt.NDArray[np.float64] = np.stack(ordered).mean(axis=0)
    return found


def worst(families: Sequence[Ranked], ratio: float) -> list[int]:
    """Return how many units of each family go, so that all lose a ratio of their weights together.

    The units with the smallest scores go while their weights fit; of a family whose cap is reached,
    no more do.
    """
    total = sum(family.weights * len(family.scores) for family in families)
    scores = np.concatenate([family.scores[: family.cap] for family in families])
    which = np.repeat(np.arange(len(families)), [len(f.scores[: f.cap]) for f in families])
    weights = np.array([family.weights for family in families], dtype=np.float64)[which]
    order = np.argsort(scores, kind="stable")
    fits = weights[order].cumsum() <= ratio * total * (1 + 1e-12)
    counts: list[int] = np.bincount(which[order[fits]], minlength=len(families)).tolist()
    return counts

"""Which units of a model go: those with the smallest scores, as many as a config asks for.

Nothing in here knows a framework: scores are arrays. Two layers whose channels are added,
with sparsity 0.5 and the scores

    first   1 5 2 9
    second  1 1 6 9
    sum     2 6 8 18       so units 0 and 1 go, of both
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prune_core.amount import DEFAULT_CAP, number_to_prune
from prune_speedup.engine.labels import Array, among
from prune_speedup.engine.selection import Family, Producer
from prune_speedup.engine.units import UnitGroup

__all__ = ["Asked", "smallest", "units_that_go"]


class Asked(NamedTuple):
    """What a config asks of one module.

    Attributes:
        ratio: How much of it goes.
        entry: Which entry of the `config_list` says so.
        weights: How many weights it has.
        cap: The most that may go of it where modules are ranked together.
    """

    ratio: float
    entry: int
    weights: int
    cap: float = DEFAULT_CAP


Scores = Callable[[str], npt.NDArray[np.float64]]
Alive = Callable[[str], npt.NDArray[np.bool_] | None]


def units_that_go(
    families: Sequence[Family],
    scores: Scores,
    alive: Alive,
    asked: Mapping[str, Asked],
    *,
    across: bool = False,
    as_one: bool = False,
    round_to: int = 1,
) -> list[int]:
    """Return the numbers of the units that go.

    A family loses the smallest ratio that any of its modules is asked for; what is masked already
    goes first, and is counted in.

    Args:
        families: What may be chosen from.
        scores: Takes the name of a module and returns a score for each of its channels.
        alive: The same for which of them are not masked yet; `None` means all.
        asked: What the config asks of each module.
        across: Rank the units of all families of an entry together.
        as_one: Do so over all entries.
        round_to: Leave a multiple of so many channels.
    """
    found = [
        [
            scored(group, producers, scores, alive)
            for group, producers in zip(family.groups, family.producers, strict=True)
        ]
        for family in families
    ]
    if across:
        counts = _counts_across(families, found, asked, as_one)
    else:
        counts = [number_to_prune(_least(each, asked).ratio, len(each)) for each in families]
    gone: list[int] = []
    for family, groups, count in zip(families, found, counts, strict=True):
        count = rounded(count, len(family), family.multiple(round_to))
        dead = max(int(np.count_nonzero(~group.alive)) for group in groups)
        for group in groups:
            # Of groups that lose as many, each loses what the one with the most masked has lost.
            ranked = np.where(group.alive, group.scores, -np.inf)
            gone += group.labels[smallest(ranked, max(count, dead))].tolist()
    return gone


def _least(family: Family, asked: Mapping[str, Asked]) -> Asked:
    return min((asked[name] for name in family.names), key=lambda each: each.ratio)


def _counts_across(
    families: Sequence[Family],
    found: Sequence[Sequence[Scored]],
    asked: Mapping[str, Asked],
    as_one: bool,
) -> list[int]:
    """Return how many units of each family are among the worst of all of its entry."""
    entries: dict[int, list[int]] = defaultdict(list)
    for at, family in enumerate(families):
        entries[0 if as_one else _least(family, asked).entry].append(at)
    counts = [0] * len(families)
    for members in entries.values():
        ranked = [
            Ranked(in_order(found[at]), _weights(families[at], asked), _cap(families[at], asked))
            for at in members
        ]
        ratio = _least(families[members[0]], asked).ratio
        for at, count in zip(members, worst(ranked, ratio), strict=True):
            counts[at] = count
    return counts


def _cap(family: Family, asked: Mapping[str, Asked]) -> int:
    cap = min(asked[name].cap for name in family.names)
    return min(number_to_prune(cap, len(family)), len(family) - 1)


def _weights(family: Family, asked: Mapping[str, Asked]) -> int:
    """Return how many weights of the selected modules one unit of each group takes."""
    total = 0
    for group, producers in zip(family.groups, family.producers, strict=True):
        for producer in producers:
            channels = int(among(producer.classes, np.array(group.labels)).sum())
            total += channels * asked[producer.name].weights // len(producer.classes)
    return total // len(family)


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
    scores: Scores,
    alive: Alive,
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


def smallest(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.bool_]:
    """Return which `count` values are the smallest; of equal ones the first.

    A partition finds the largest value that goes, in linear time, where a sort would put all of
    the others in order too.

    >>> smallest(np.array([2.0, 1.0, 3.0, 1.0, 1.0]), 2)
    array([False,  True, False,  True, False])
    """
    if count <= 0:
        return np.zeros(values.size, bool)
    last = np.partition(values, min(count, values.size) - 1)[min(count, values.size) - 1]
    found = np.asarray(values < last)
    equal = np.flatnonzero(values == last)
    found[equal[: count - np.count_nonzero(found)]] = True
    return found

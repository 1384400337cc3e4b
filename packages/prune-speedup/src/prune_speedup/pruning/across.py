"""Ranking the units of several groups together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Ranked", "in_order", "worst"]


class Ranked(NamedTuple):
    """A family of groups, from its least important unit to its most important.

    Attributes:
        scores: Of each unit, relative to the mean of its group; ascending.
        weights: How many weights a unit takes.
        cap: How many units may go at most.
    """

    scores: Tensor
    weights: int
    cap: int


def in_order(groups: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return relative scores, ascending, of groups that lose as many units as each other.

    A group's scores are divided by their mean, without signs, so that groups whose weights are
    small, or many, can be compared with others: [1, 3] and [10, 30] both become [0.5, 1.5]. The
    first to go of several groups go together, and count as the mean of theirs; what is masked
    already goes first.

    Args:
        groups: For each group its scores, and which of its units are still there.
    """
    ordered = []
    for scores, alive in groups:
        mean = scores.abs().mean()
        relative = scores / mean if mean else scores
        ordered.append(relative.masked_fill(~alive, -torch.inf).sort().values)
    return torch.stack(ordered).mean(0)


def worst(families: Sequence[Ranked], ratio: float) -> list[int]:
    """Return how many units of each family go, so that all lose a ratio of their weights together.

    The units with the smallest scores go while their weights fit; of a family whose cap is reached,
    no more do.
    """
    total = sum(family.weights * len(family.scores) for family in families)
    scores = torch.cat([family.scores[: family.cap] for family in families])
    which = torch.cat([torch.full((family.cap,), at) for at, family in enumerate(families)])
    weights = torch.tensor([family.weights for family in families], dtype=torch.float64)[which]
    order = scores.argsort(stable=True)
    fits = weights[order].cumsum(0) <= ratio * total * (1 + 1e-12)
    chosen = which[order[fits]]
    return torch.bincount(chosen, minlength=len(families)).tolist()

"""The plans of a search: sparsities to try, one after the other or several at once."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, TypeVar

from prune_core.errors import PruneError

__all__ = ["DeadEndError", "Plan", "Plans", "Sparsities", "side_by_side"]

_T = TypeVar("_T")
Sparsities = dict[str, float]
Plan = Sparsities
# What is sent is a score for a plan, and a list of scores for a list of plans.
Plans = Generator[Plan | list[Plan], Any, None]


class DeadEndError(PruneError):
    """A search cannot go on: no layer can lose more, or no trial has a score."""


def side_by_side(
    searches: Mapping[str, Generator[Plan, float | None, _T]],
) -> Generator[list[Plan], list[float | None], dict[str, _T]]:
    """Run several independent generators of plans side by side, and return their results.

    Each is sent its own scores; those that have ended yield no more plans.

    Args:
        searches: The generators.
    """
    results: dict[str, _T] = {}
    answers: dict[str, float | None] = dict.fromkeys(searches)
    while answers:
        asked = {}
        for name, score in answers.items():
            try:
                asked[name] = searches[name].send(score)
            except StopIteration as end:
                results[name] = end.value
        scores = (yield list(asked.values())) if asked else []
        answers = dict(zip(asked, scores, strict=True))
    return {name: results[name] for name in searches}

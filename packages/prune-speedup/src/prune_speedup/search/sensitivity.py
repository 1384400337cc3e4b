"""The walk of a sensitivity analysis: how much of each layer can go before the score drops."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from prune_core.errors import ConfigError
from prune_speedup.search.plans import Plan, Plans, Sparsities, side_by_side
from prune_speedup.search.weights import Budget

__all__ = ["RATIOS", "Sensitivity"]

RATIOS = tuple(tenth / 10 for tenth in range(1, 10))


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What is tried in each round, and what is made of it.

    Attributes:
        sparsity_per_iter: The ratio of all weights that each round prunes.
        acc_drop_threshold: How much the score may drop.
        ratios: The sparsities that are tried.
        sparsity_proportion_calc: Takes `{layer: sparsity that it tolerates}` and returns the
            shares in which layers are pruned; those themselves unless given.

    Raises:
        ConfigError: One of them is out of its range.
    """

    sparsity_per_iter: float = 0.1
    acc_drop_threshold: float = 0.05
    ratios: Sequence[float] = RATIOS
    sparsity_proportion_calc: Callable[[Sparsities], Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sparsity_per_iter <= 1:
            raise ConfigError(
                f"sparsity_per_iter is {self.sparsity_per_iter!r}; it must be above 0 and at most "
                "1."
            )
        if not self.acc_drop_threshold >= 0:
            raise ConfigError(
                f"acc_drop_threshold is {self.acc_drop_threshold!r}; it must be at least 0."
            )
        if not self.ratios or any(not 0 < ratio < 1 for ratio in self.ratios):
            raise ConfigError(f"ratios is {self.ratios!r}; it must be numbers between 0 and 1.")

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on, as plain data."""
        return {
            "sparsity_per_iter": self.sparsity_per_iter,
            "acc_drop_threshold": self.acc_drop_threshold,
            "ratios": sorted(self.ratios),
        }

    def walk(
        self,
        caps: Mapping[str, float],
        budget: Budget,
        keep: Callable[[Sparsities, float | None], object],
        seen: Callable[[int, str, float, float | None], object],
        train: Callable[[int, Sparsities], object] | None = None,
    ) -> Plans:
        """Yield plans that prune one layer more and more, and one for all after each round.

        Args:
            caps: The most that each layer may lose.
            budget: What may be left in the end.
            keep: Called with the plan of each round, and its score.
            seen: Called for each layer that was pruned alone: the number of the round, the layer,
                its sparsity, and the score.
            train: Called with the number of each round and its plan, to train the model; its plan
                is then scored once more.
        """
        current: Sparsities = dict.fromkeys(caps, 0.0)
        score = yield current
        groups = budget.groups
        most = 1.0 - min(budget.target.values())
        rounds = ceil(round(most / self.sparsity_per_iter, 9))
        for number in range(1, rounds + 1):
            # The layers of a group can only be pruned together, so one of them stands for all.
            found = yield from side_by_side(
                {
                    group[0]: self._analyse(group, current, caps, score, number, seen)
                    for group in groups
                }
            )
            tolerated = dict(current)
            for group in groups:
                tolerated |= dict.fromkeys(group, found[group[0]])
            calculate = self.sparsity_proportion_calc
            shares = dict(tolerated if calculate is None else calculate(dict(tolerated)))
            current = budget.fitted(shares, current, number * self.sparsity_per_iter)
            score = yield current
            keep(current, score)
            if train is not None:
                train(number, current)
                score = yield current
                keep(current, score)

    def _analyse(
        self,
        group: Sequence[str],
        current: Sparsities,
        caps: Mapping[str, float],
        base: float | None,
        number: int,
        seen: Callable[[int, str, float, float | None], object],
    ) -> Generator[Plan, float | None, float]:
        """Prune a layer, and those coupled with it, more and more; return what it tolerates."""
        layer = group[0]
        tolerated = current[layer]
        for ratio in sorted(self.ratios):
            if not current[layer] < ratio <= caps[layer]:
                continue
            score = yield {**current, **dict.fromkeys(group, ratio)}
            seen(number, layer, ratio, score)
            # Without a score to compare with, nothing says that the layer tolerates anything.
            if score is None or base is None or score < base - self.acc_drop_threshold:
                break
            tolerated = ratio
        return tolerated

"""A walk among plans by simulated annealing; whoever drives it scores them, in any framework."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, log

from prune_core.errors import ConfigError
from prune_speedup.search.plans import Sparsities

__all__ = ["Annealing", "Walk"]

Walk = Generator[list[Sparsities], Sequence[float | None], tuple[float, int, Sparsities] | None]
"""Yields plans, is sent their scores, and returns the best score, its number and its plan."""


@dataclass(frozen=True, slots=True)
class Annealing:
    """How a walk cools down.

    Attributes:
        start_temperature: The first temperature.
        stop_temperature: The temperature at which it ends.
        cool_down_rate: The factor of the temperature with each step.
        perturbation_magnitude: The largest change of a layer's sparsity, at first.
        tries: The number of changes tried at each temperature.

    Raises:
        ConfigError: The walk would not end, or not begin.
    """

    start_temperature: float = 100.0
    stop_temperature: float = 20.0
    cool_down_rate: float = 0.9
    perturbation_magnitude: float = 0.35
    tries: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.stop_temperature < self.start_temperature:
            raise ConfigError(
                f"start_temperature is {self.start_temperature:g} and stop_temperature is "
                f"{self.stop_temperature:g}; the temperature falls from the first to the second, "
                "and both are above 0."
            )
        for name in ("cool_down_rate", "perturbation_magnitude"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be between 0 and 1.")
        if self.tries < 1:
            raise ConfigError(f"tries is {self.tries}; it must be at least 1.")

    @property
    def coolings(self) -> int:
        """How often it cools down."""
        ratio = log(self.stop_temperature / self.start_temperature) / log(self.cool_down_rate)
        return ceil(round(ratio, 9))

    @property
    def length(self) -> int:
        """The number of trials: two at first, and `tries` for each temperature."""
        return 2 + self.tries * self.coolings

    def walk(
        self,
        first: Sparsities,
        groups: Sequence[Sequence[str]],
        sizes: Mapping[str, int],
        within_budget: Callable[[Sparsities], Sparsities],
        chance: random.Random,
        better: Callable[[Sparsities, float, int], object],
    ) -> Walk:
        """Yield plans, each close to the last accepted one.

        It begins with a plan, tries a random one in which larger layers lose more, and goes on
        from the better by ever smaller changes. A change for the worse by ΔE is accepted with
        probability `exp(−ΔE / (T/T₀ · E))`, where E is the mean change so far.

        Args:
            first: The plan to begin with.
            groups: Layers among which sparsity is handed around.
            sizes: The number of weights of each layer.
            within_budget: Takes how much each layer is to lose in relation to the others, and
                returns sparsities that meet the budget.
            chance: Random numbers.
            better: Called with each plan that is the best so far, its score and its number.
        """
        changes: list[float] = []
        current, current_score = first, None
        best: tuple[float, int, Sparsities] | None = None
        temperature, made = 1.0, 0
        for step in range(1 + self.coolings):
            tried = []
            for number in range(self.tries if step else 2):
                if step:
                    reach = self.perturbation_magnitude * temperature
                    plan = within_budget(
                        {n: max(0.0, s + chance.uniform(-reach, reach)) for n, s in current.items()}
                    )
                else:
                    plan = within_budget(_larger_more(groups, sizes, chance)) if number else current
                tried.append((plan, chance.random()))
            if step:
                temperature *= self.cool_down_rate
            scores = yield [plan for plan, _ in tried]
            for number, ((plan, drawn), score) in enumerate(zip(tried, scores, strict=True), made):
                if score is None:
                    continue
                if best is None or score > best[0]:
                    best = score, number, plan
                    better(plan, score, number)
                if current_score is None:
                    current, current_score = plan, score
                    continue
                loss = current_score - score
                changes.append(abs(loss))
                usual = sum(changes) / len(changes)
                if loss <= 0 or (usual > 0 and drawn < exp(-loss / (usual * temperature))):
                    current, current_score = plan, score
            made += len(tried)
        return best


def _larger_more(
    groups: Sequence[Sequence[str]], sizes: Mapping[str, int], chance: random.Random
) -> Sparsities:
    """Draw a share for each layer, and give the larger shares to the larger layers."""
    shares: Sparsities = {}
    for names in groups:
        drawn = sorted(chance.uniform(0.0, 1.0) for _ in names)
        shares |= dict(zip(sorted(names, key=sizes.__getitem__), drawn, strict=True))
    return shares

"""NetAdapt's walk among plans: each round prunes the one layer whose loss costs least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prune_core.errors import ConfigError
from prune_speedup.search.plans import DeadEndError, Plan, Plans, Sparsities
from prune_speedup.search.weights import Budget

__all__ = ["NetAdapt"]

HALVINGS = 10


@dataclass(frozen=True, slots=True)
class NetAdapt:
    """How large the steps of the walk are.

    Attributes:
        sparsity_per_iteration: The saving of each round, as a ratio of the dense cost. If no layer
            can bring it, it is halved.

    Raises:
        ConfigError: It is no ratio.
    """

    sparsity_per_iteration: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.sparsity_per_iteration < 1:
            raise ConfigError(
                f"sparsity_per_iteration is {self.sparsity_per_iteration!r}; it must be between 0 "
                "and 1."
            )

    def walk(
        self,
        dense: Sparsities,
        budget: Budget,
        adopt: Callable[[int, int, Sparsities, float], object],
    ) -> Plans:
        """Yield the dense model, then the candidates of each round, until the budget is met.

        Args:
            dense: The plan to begin with.
            budget: What may be left.
            adopt: Called with what each round has chosen: the number of the round from 1, the
                number of the trial, its plan and its score. The next round goes on from there.

        Raises:
            DeadEndError: No layer can lose more, or no candidate of a round has a score.
        """
        current = dense
        yield current
        number, step, made = 0, self.sparsity_per_iteration, 1
        while (kind := _furthest(budget, current)) is not None:
            candidates = _candidates(budget, current, kind, step)
            while not candidates:
                step /= 2
                if step < self.sparsity_per_iteration / 2**HALVINGS:
                    raise DeadEndError(_stuck(budget, current, kind))
                candidates = _candidates(budget, current, kind, step)
            number += 1
            best: tuple[float, int, Plan] | None = None
            scores = yield candidates
            for plan, score in zip(candidates, scores, strict=True):
                if score is not None and (best is None or score > best[0]):
                    best = score, made, plan
                made += 1
            if best is None:
                raise DeadEndError(f"None of the candidates of round {number} has a score.")
            score, trial, current = best
            adopt(number, trial, current, score)


def _furthest(budget: Budget, current: Sparsities) -> str | None:
    """Return the kind of cost that is furthest from its target, or None when all are met."""
    left, target = budget.left(current), budget.target
    kind = max(target, key=lambda kind: left[kind] - target[kind])
    return kind if left[kind] > target[kind] + 1e-9 else None


def _candidates(budget: Budget, current: Sparsities, kind: str, step: float) -> list[Plan]:
    """Prune each group alone just far enough to bring the saving of the round."""
    wanted = max(budget.target[kind], budget.left(current)[kind] - step)
    plans = [budget.reduced(current, group, kind, wanted) for group in budget.groups]
    return [plan for plan in plans if plan is not None]


def _stuck(budget: Budget, current: Sparsities, kind: str) -> str:
    left = budget.left(current)[kind]
    return (
        f"No layer can lose more, with {left:.1%} left of {kind}, where "
        f"{budget.target[kind]:.1%} is asked for; let more layers be pruned, raise "
        "'max_sparsity_per_layer', or ask for less."
    )

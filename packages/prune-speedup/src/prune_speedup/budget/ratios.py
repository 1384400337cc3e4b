"""The least sparsity at which a model meets its budgets, whatever the framework.

Two functions say what is left at a sparsity: a *plan*, which is quick, and the model as it would
really be made small, which may have to keep more than was planned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prune_core.errors import ConfigError, did_you_mean
from prune_core.registry import names
from prune_speedup.budget.costs import is_registered

__all__ = ["BUDGETS", "Ratios", "budgets", "check_target", "least_sparsity", "sparsity_for"]

BUDGETS = ("parameters", "flops", "latency")
"""What prune itself can count or measure; plugins may register further costs."""
MOST = 0.99
CLOSE_ENOUGH = 1e-3
# Each probe of a latency shrinks a copy of the model and times it.
CLOSE_ENOUGH_MEASURED = 0.03
ATTEMPTS = 6
"""How often a lower budget is aimed at, where `shrink` leaves more than was planned."""
A_LITTLE = 0.1
"""Up to which share of a budget. Where more stays, the user should know before anything else pays
for it."""

Ratios = Mapping[str, float]


def budgets() -> tuple[str, ...]:
    """Return the names of all that a budget can be about."""
    return (*BUDGETS, *sorted(names("cost") - set(BUDGETS)))


def check_target(target: Ratios) -> None:
    """Refuse a budget that is not one."""
    if not isinstance(target, Mapping) or not target:
        raise ConfigError(
            f"target is {target!r}; it must be a dict such as {{'flops': 0.5}}, what may be left "
            f"of {', '.join(budgets())}."
        )
    for name, ratio in target.items():
        if name not in (known := budgets()) and not (isinstance(name, str) and is_registered(name)):
            raise ConfigError(
                f"target has {name!r}; a budget is one of {', '.join(known)}."
                f"{did_you_mean(name, known)}"
            )
        if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 < ratio < 1:
            raise ConfigError(
                f"target[{name!r}] is {ratio!r}; it must be what may be left, greater than 0 and "
                "less than 1."
            )


def sparsity_for(
    target: Ratios,
    planned: Callable[[float], Ratios],
    really: Callable[[float], Ratios],
    *,
    stays: Callable[[], str],
    missed: Callable[[Ratios], str],
) -> float:
    """Return the least sparsity that meets all budgets, and would really meet them.

    Args:
        target: What may be left, such as `{"flops": 0.5}`.
        planned: Takes a sparsity and returns what a plan leaves.
        really: Takes a sparsity and returns what the small model would have; kinds that it does
            not say anything of are taken as planned.
        stays: Says what is not pruned besides, as a message goes on: `"; 'head' keeps all"`.
        missed: Takes what would really be left and returns what to tell the user.

    Raises:
        ConfigError: When even the most that can be pruned does not meet a budget, or much more
            would be left than was planned.
    """
    aimed_at = dict(target)
    for attempt in range(ATTEMPTS + 1):
        sparsity = least_sparsity(planned, aimed_at, stays)
        left = really(sparsity)
        over = {name: ratio - target[name] for name, ratio in left.items()}
        if max(over.values(), default=0.0) <= 0:
            break
        if attempt == ATTEMPTS or any(over[name] > A_LITTLE * target[name] for name in over):
            raise ConfigError(missed(left))
        # Some of what is masked stays, for a way of running that the plan did not see.
        aimed_at = {name: ratio - max(over.get(name, 0.0), 0.0) for name, ratio in aimed_at.items()}
    return sparsity


def least_sparsity(
    left: Callable[[float], Ratios], target: Ratios, stays: Callable[[], str]
) -> float:
    """Return the least sparsity at which a plan meets all budgets.

    Raises:
        ConfigError: When none does.
    """

    def missed_by(ratios: Ratios) -> list[str]:
        return [name for name, ratio in ratios.items() if ratio > target[name]]

    reached = left(MOST)
    for missed in missed_by(reached):
        raise ConfigError(
            f"target[{missed!r}] is {target[missed]:.3g}, and with {MOST:.0%} of everything that "
            f"may be pruned gone {reached[missed]:.3f} is left{stays()}. Let more "
            "modules be pruned, or ask for less."
        )
    low, high = 0.0, MOST
    while high - low > (CLOSE_ENOUGH_MEASURED if "latency" in target else CLOSE_ENOUGH):
        middle = (low + high) / 2
        low, high = (middle, high) if missed_by(left(middle)) else (low, middle)
    return high

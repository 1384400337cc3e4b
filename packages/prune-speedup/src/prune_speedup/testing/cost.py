"""`check_cost`: what a cost must be, so that a budget of it can be met."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from prune_core.testing import ResidualNet, make_batch, make_toy, run_checks
from prune_speedup.budget.costs import Workload, workload_of_plan
from prune_speedup.engine.plan import make_plan
from prune_speedup.torch.analysis import units

__all__ = ["check_cost"]


@dataclass(frozen=True)
class _Subject:
    cost: Callable[[Workload], float]
    model: Any

    def workloads(self) -> Iterator[tuple[str, Workload]]:
        """Yield the dense workload, and smaller and smaller ones, each with what is gone."""
        found = units(make_toy(self.model), make_batch(self.model, 2)[0])
        yield "nothing", workload_of_plan(make_plan(found.labelling, ()))
        gone: list[int] = []
        for group in found.groups:
            for label in group.labels[:-1]:
                gone.append(label)
                yield f"{len(gone)} channels", workload_of_plan(make_plan(found.labelling, gone))


def _cost_is_a_number(subject: _Subject) -> None:
    """It is a finite number of at least 0, and the dense model costs something."""
    for gone, workload in subject.workloads():
        value: Any = subject.cost(workload)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and isfinite(value) and value >= 0):
            raise AssertionError(f"with {gone} gone it is {value!r}; it must be a number >= 0.")
        if gone == "nothing" and not value:
            raise AssertionError("the dense model costs nothing.")


def _same_workload_costs_the_same(subject: _Subject) -> None:
    """Asked twice, it says the same."""
    for gone, workload in subject.workloads():
        first, second = subject.cost(workload), subject.cost(workload)
        if first != second:
            raise AssertionError(f"with {gone} gone it is {first!r}, and then {second!r}.")


def _less_never_costs_more(subject: _Subject) -> None:
    """A model that has lost channels never costs more: a budget is found by bisection."""
    before: tuple[str, float] | None = None
    costs: list[float] = []
    for gone, workload in subject.workloads():
        now = subject.cost(workload)
        if before is not None and now > before[1] * (1 + 1e-9):
            raise AssertionError(
                f"it is {before[1]:g} with {before[0]} gone, and {now:g} with {gone} gone."
            )
        before = gone, now
        costs.append(now)
    if not costs[-1] < costs[0]:
        raise AssertionError("it never falls, whatever is removed, so no budget of it can be met.")


CHECKS: Mapping[str, Callable[[_Subject], None]] = {
    "number": _cost_is_a_number,
    "determinism": _same_workload_costs_the_same,
    "monotony": _less_never_costs_more,
}


def check_cost(
    cost: Callable[[Workload], float],
    *,
    model: Any = ResidualNet,
    skip: Collection[str] = (),
) -> None:
    """Check a cost on a toy from which channel after channel is removed.

    Args:
        cost: The function of a workload.
        model: Makes the model: a toy of `prune_core.testing`, or a class with an `input_shape`.
        skip: Names of checks that do not apply: `number`, `determinism`, `monotony`. A latency
            table may rise a little where channels are no multiple of what a device likes.

    Raises:
        AssertionError: When a check fails; the message lists all that do.
    """
    run_checks(getattr(cost, "__name__", repr(cost)), CHECKS, _Subject(cost, model), skip)

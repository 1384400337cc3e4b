"""Run a model in two states, as it was and as it has become, in several ways, and keep the worst.

Every proof does that: of smaller layers, of blocks left out, of experts removed. What the first
state has to compute, and what counts as the same, each of them says itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from prune_core.errors import ConfigError, SpeedupError
from prune_speedup.torch.heap import give_back
from prune_speedup.torch.measure import size_of
from prune_speedup.torch.proof.compare import IN_DOUBLE, Difference
from prune_speedup.torch.proof.higher_precision import narrowest, type_to_prove_in, widen, widened
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.follower import Follower
from prune_speedup.torch.record.higher_precision import Wider
from prune_speedup.torch.record.isolation import Before
from prune_speedup.torch.tensors import Snapshot

__all__ = ["CaseError", "TwoStates", "Verdict", "run_case", "where_it_hardly_rounds"]

Expected = TypeVar("Expected")


class CaseError(SpeedupError):
    """The small model does not do in a case what the one before has to do.

    Attributes:
        case: The case.
        runs: Whether the small model runs there at all.
        rounds: Whether rounding may be all that it is.
        shaky: Whether rounding alone moves the model before by as much.
    """

    shaky = False

    def __init__(self, case: Case, message: str, *, runs: bool, rounds: bool = True) -> None:
        """Note the case."""
        super().__init__(message)
        self.case = case
        self.runs, self.rounds = runs, runs and rounds


@dataclass(slots=True)
class Verdict:
    """What was compared.

    Attributes:
        difference: The largest, weighed by what is allowed; without a case, none.
        inputs: What both were run on, for people.
        apart: The cases in which they differ by what may be rounding.
        explained: The cases that say nothing, because rounding alone moves the model as far.
        instead: What is to be looked at in their place.
    """

    difference: Difference = field(default_factory=lambda: Difference(0.0, "", 0.0))
    inputs: list[str] = field(default_factory=list)
    apart: list[CaseError] = field(default_factory=list)
    explained: list[str] = field(default_factory=list)
    instead: list[Case] = field(default_factory=list)

    def note(self, case: Case, difference: Difference) -> None:
        """Add a case in which they are the same."""
        self._add([case.name], difference)

    def add(self, other: Verdict) -> None:
        """Add what was seen in other numbers."""
        self.explained += other.explained
        self.instead += other.instead
        if other.inputs:
            self._add(other.inputs, other.difference)

    def _add(self, inputs: list[str], difference: Difference) -> None:
        if not self.inputs or difference.weight > self.difference.weight:
            self.difference = difference
        self.inputs += inputs


Prove = Callable[[Sequence[Case], float | None, torch.dtype | None], Verdict]
"""Compares in some cases, with a tolerance, in a type of numbers."""


def where_it_hardly_rounds(
    model: nn.Module,
    tolerance: float | None,
    cases: Sequence[Case],
    prove: Prove,
    rounding: set[str] | None = None,
) -> Verdict:
    """Prove in the model's own numbers, and in double what differs there.

    Rounding can be told from an error in numbers that hardly round. Half precision is widened from
    the first. A tolerance that the user gives is meant for the numbers at hand.

    Args:
        model: The model.
        tolerance: What the user allows.
        cases: The cases.
        prove: Compares both models in some of them.
        rounding: The names of cases that are looked at in double at once, because an earlier proof
            had to. Those of this one are added.

    Raises:
        CaseError: They differ in a case.
    """
    if not cases:
        return Verdict()
    known = set() if rounding is None else rounding
    verdict = _proved(model, tolerance, cases, prove, known)
    verdict.add(where_it_hardly_rounds(model, tolerance, verdict.instead, prove, known))
    verdict.inputs.sort(key=lambda name: name != "the example")
    return verdict


def _proved(
    model: nn.Module,
    tolerance: float | None,
    cases: Sequence[Case],
    prove: Prove,
    rounding: set[str],
) -> Verdict:
    own = type_to_prove_in(model)
    if tolerance is not None or narrowest(model) == torch.float64:
        return _without_errors(prove(cases, tolerance, own))
    doubtful = [case for case in cases if case.name in rounding]
    verdict = prove([case for case in cases if case.name not in rounding], None, own)
    rounding.update(error.case.name for error in verdict.apart)
    doubtful += [error.case for error in verdict.apart]
    if not doubtful:
        return verdict
    try:
        in_double = _without_errors(prove(doubtful, IN_DOUBLE, torch.float64))
    except ConfigError:
        in_double = Verdict()
    done = {*in_double.inputs, *in_double.explained}
    for error in verdict.apart:
        if error.case.name not in done:
            raise error  # some kernels take no doubles
    verdict.add(in_double)
    if left := [case for case in doubtful if case.name not in done]:
        verdict.add(_without_errors(prove(left, None, own)))
    return verdict


def _without_errors(verdict: Verdict) -> Verdict:
    if verdict.apart:
        raise verdict.apart[0]
    return verdict


class TwoStates(Generic[Expected]):
    """A model, what it was, and what it has become; it is left as it has become.

    Args:
        model: The model.
        original: What it was.
        small: What it has become; what it is now, unless given.
    """

    def __init__(self, model: nn.Module, original: Snapshot, small: Snapshot | None = None) -> None:
        self._model, self.original = model, original
        self.small = Snapshot(model, original) if small is None else small
        self._before: Before | None = None
        self._size = 0

    def become(self, state: Snapshot, dtype: torch.dtype | None) -> None:
        """Put the model into a state, and its numbers into a type."""
        self._before = None
        state.restore()
        self._size = self._size or size_of(self._model)
        give_back(self._size)
        if dtype is not None:
            widen(self._model, dtype)

    @property
    def before(self) -> Before:
        """What the model is in its state, for all of its runs there."""
        if self._before is None:
            self._before = Before(self._model)
        return self._before

    def expected(
        self,
        cases: Iterable[Case],
        dtype: torch.dtype | None,
        run: Callable[[Case], Expected | None],
    ) -> list[tuple[Case, Expected]]:
        """What the model as it was has to compute, in each case that it accepts.

        Args:
            cases: The cases; where one is not accepted, what it names instead.
            dtype: The type of numbers.
            run: Followers the model in a case, and returns nothing if it does not accept that.
        """
        self.become(self.original, dtype)
        found: list[tuple[Case, Expected]] = []
        waiting = list(reversed(list(cases)))
        while waiting:
            case = waiting.pop()
            seen = run(case)
            give_back(self._size)
            if seen is not None:
                found.append((case, seen))
            elif case.otherwise is not None:
                waiting.append(case.otherwise)
        return found

    def held(
        self,
        pairs: list[tuple[Case, Expected]],
        dtype: torch.dtype | None,
        hold: Callable[[Case, Expected], Difference],
        is_explained: Callable[[Case, Expected, CaseError], bool] = lambda *_: False,
    ) -> Verdict:
        """Run the model as it has become in each case, and hold it to what was expected.

        A case in which they differ by what may be rounding is noted; any other difference raises.

        Args:
            pairs: The cases, and what is expected.
            dtype: The type of numbers.
            hold: Runs it and compares; raises where they differ.
            is_explained: Whether they differ for a reason that says nothing of the small model.
        """
        verdict = Verdict()
        self.become(self.small, dtype)
        try:
            for case, seen in pairs:
                try:
                    difference = hold(case, seen)
                except CaseError as error:
                    if not error.rounds:
                        raise
                    try:
                        explained = is_explained(case, seen, error)
                    finally:
                        self.become(self.small, dtype)
                    if explained:
                        verdict.explained.append(case.name)
                        verdict.instead += [] if case.otherwise is None else [case.otherwise]
                    else:
                        verdict.apart.append(error)
                    continue
                verdict.note(case, difference)
        finally:
            if dtype is not None:
                self.become(self.small, None)
        return verdict


def run_case(
    run: Follower,
    case: Case,
    dtype: torch.dtype | None,
    *,
    again: bool = False,
    before: Before | None = None,
) -> Any:
    """Run a model as a case says, in this type of numbers or in their own."""
    run.before = before
    run.wide = None if dtype is None else Wider(dtype)
    run.steady = case.training
    inputs = case.inputs if dtype is None else widened(case.inputs, dtype)
    if case.training:
        return run.train(inputs)
    return run.open(inputs) if case.opened else run.run(inputs, again=again)

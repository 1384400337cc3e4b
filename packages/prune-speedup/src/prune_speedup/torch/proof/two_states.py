"""Run a model in two states, as it was and as it has become, in several ways, and keep the worst.

Every proof does that: of smaller layers, of blocks left out, of experts removed. What the first
state has to compute, and what counts as the same, each of them says itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from prune_core.errors import ConfigError, SpeedupError
from prune_speedup.torch.cost import flops_of
from prune_speedup.torch.proof.compare import IN_DOUBLE, Difference
from prune_speedup.torch.proof.wide import narrowest, type_to_prove_in, widen, widened
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.tensors import Snapshot

__all__ = ["CaseError", "TwoStates", "Verdict", "run_case", "where_it_hardly_rounds"]

Expected = TypeVar("Expected")
Result = TypeVar("Result")


class CaseError(SpeedupError):
    """The small model does not do in a case what the one before has to do.

    Attributes:
        case: The case.
        runs: Whether the small model runs there at all.
        rounds: Whether rounding may be all that it is.
    """

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
        flops: Of the small model, on the example.
    """

    difference: Difference = field(default_factory=lambda: Difference(0.0, "", 0.0))
    inputs: list[str] = field(default_factory=list)
    flops: int = 0


def where_it_hardly_rounds(
    model: nn.Module,
    tolerance: float | None,
    prove: Callable[[float | None, torch.dtype | None], Result],
) -> Result:
    """Prove in the model's own numbers, and, where it computes something else, once more in double.

    Rounding can be told from an error in numbers that hardly round. Half precision is widened from
    the first. A tolerance that the user gives is meant for the numbers at hand.
    """
    try:
        return prove(tolerance, type_to_prove_in(model))
    except CaseError as apart:
        if tolerance is not None or not apart.rounds or narrowest(model) == torch.float64:
            raise
        try:
            return prove(IN_DOUBLE, torch.float64)
        except ConfigError:
            raise apart from None  # some kernels take no doubles


class TwoStates(Generic[Expected]):
    """A model, what it was, and what it has become; it is left as it has become.

    Args:
        model: The model.
        original: What it was.
        small: What it has become; what it is now, unless given.
    """

    def __init__(self, model: nn.Module, original: Snapshot, small: Snapshot | None = None) -> None:
        self._model, self.original = model, original
        self.small = Snapshot(model) if small is None else small

    def become(self, state: Snapshot, dtype: torch.dtype | None) -> None:
        """Put the model into a state, and its numbers into a type."""
        state.restore()
        if dtype is not None:
            widen(self._model, dtype)

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
            run: Runs the model in a case, and returns nothing if it does not accept that.
        """
        self.become(self.original, dtype)
        found: list[tuple[Case, Expected]] = []
        waiting = list(reversed(list(cases)))
        while waiting:
            case = waiting.pop()
            seen = run(case)
            if seen is not None:
                found.append((case, seen))
            elif case.otherwise is not None:
                waiting.append(case.otherwise)
        return found

    def held(
        self,
        pairs: list[tuple[Case, Expected]],
        dtype: torch.dtype | None,
        hold: Callable[[Case, Expected], tuple[Recorder, Difference]],
        instead: Callable[[Case, Expected, CaseError], list[tuple[Case, Expected]]] | None = None,
    ) -> Verdict:
        """Run the model as it has become in each case, and hold it to what was expected.

        Args:
            pairs: The cases, and what is expected.
            dtype: The type of numbers.
            hold: Runs it and compares; raises where they differ.
            instead: What to look at where they differ for a reason that says nothing of the small
                model; it raises the error where that is not so.
        """
        verdict = Verdict()
        waiting = list(pairs)
        self.become(self.small, dtype)
        try:
            while waiting:
                case, seen = waiting.pop(0)
                try:
                    recorder, difference = hold(case, seen)
                except CaseError as error:
                    if instead is None:
                        raise
                    waiting = instead(case, seen, error) + waiting
                    self.become(self.small, dtype)
                    continue
                if case.name == "the example":
                    verdict.flops = flops_of(recorder.graph)
                if not verdict.inputs or difference.weight > verdict.difference.weight:
                    verdict.difference = difference
                verdict.inputs.append(case.name)
        finally:
            self.small.restore()
        return verdict


def run_case(
    recorder: Recorder, case: Case, dtype: torch.dtype | None, *, again: bool = False
) -> Any:
    """Run a recorder's model as a case says, in this type of numbers or in their own."""
    recorder.wide, recorder.steady = dtype, case.training
    inputs = case.inputs if dtype is None else widened(case.inputs, dtype)
    if case.training:
        return recorder.train(inputs)
    return recorder.open(inputs) if case.opened else recorder.run(inputs, again=again)

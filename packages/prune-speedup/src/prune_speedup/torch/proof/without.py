"""Hold a model without some of its choices to what it has to compute.

Experts that a router chooses among are such choices, and tokens that a language model chooses
among. What is left has to be the model as it was, with the logits of the others at −∞.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from prune_core.errors import ConfigError, SpeedupError
from prune_speedup.torch.cost import flops_of
from prune_speedup.torch.proof.cases import cases_of
from prune_speedup.torch.proof.compare import Difference, compare
from prune_speedup.torch.proof.higher_precision import type_to_prove_in
from prune_speedup.torch.proof.two_states import (
    CaseError,
    TwoStates,
    Verdict,
    run_case,
    where_it_hardly_rounds,
)
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.inputs import Found, found_in
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.tensors import Snapshot

__all__ = ["NEVER", "ProofWithout"]

NEVER = (float("-inf"), -1e30)
"""What stands for −∞; the second where a model computes with differences of logits."""


class ProofWithout(ABC):
    """What a model computed before some choices were removed, and has to compute after.

    Args:
        model: The model as it is.
        example_inputs: The example.
        verify_inputs: More inputs.
        tolerance: The largest difference allowed.

    Attributes:
        what: What the choices are called.
        difference: Where both are farthest apart.
        inputs: What both were run on, for people.
        flops: Of the example, before and after.
    """

    what: ClassVar[str]

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        verify_inputs: Sequence[Any],
        tolerance: float | None,
    ) -> None:
        """Run the model as it is, in which nobody makes the choices that will go."""
        self._model, self._tolerance = model, tolerance
        self._original = Snapshot(model)
        self._cases = cases_of(
            model, example_inputs, verify_inputs, opened=False, repaired=True, asked=False
        )
        self.difference = Difference(0.0, "", 0.0)
        self.inputs: list[str] = []
        self.flops = 0, 0
        self._own = type_to_prove_in(model)
        self._known = self._expected(self._cases, self._own)

    @abstractmethod
    def recorder(self, never: float) -> Recorder:
        """Return what runs the model as it was, with the logits of what goes at `never`."""

    @abstractmethod
    def as_small(self, expected: Found, found: Found) -> Found:
        """What was returned, without the places that a smaller model does not return."""

    @abstractmethod
    def hint(self, expected: Found, difference: Difference) -> str:
        """What may be the cause of a difference, as a sentence after a space, or nothing."""

    def before(self, inputs: Any) -> Any:
        """What the model as it was is run on."""
        return inputs

    def after(self, inputs: Any) -> Any:
        """The same for the small model."""
        return inputs

    def check(self) -> None:
        """Run the model as it has become, and compare.

        Raises:
            SpeedupError: It computes something else, or does not run.
        """
        verdict = where_it_hardly_rounds(self._model, self._tolerance, self._cases, self._compared)
        self.difference, self.inputs = verdict.difference, verdict.inputs

    def _expected(
        self, cases: Sequence[Case], dtype: torch.dtype | None
    ) -> list[tuple[Case, Found]]:
        """What the model computed."""
        states: TwoStates[Found] = TwoStates(self._model, self._original)
        try:
            for never in NEVER:
                found = states.expected(
                    cases, dtype, partial(self._run_before, never=never, dtype=dtype)
                )
                if not any(_has_nan(each) for _, each in found):
                    break
            return found
        finally:
            states.small.restore()

    def _run_before(self, case: Case, never: float, dtype: torch.dtype | None) -> Found | None:
        recorder = self.recorder(never)
        try:
            before = replace(case, inputs=self.before(case.inputs))
            returned = found_in(run_case(recorder, before, dtype))
        except Exception as error:
            if not case.required:
                return None  # a made-up case that the model does not accept
            raise ConfigError(
                f"The model does not run on {case.name}: {type(error).__name__}: {error}. Give "
                "inputs that model(...) accepts, in the form of the example."
            ) from error
        if case.name == "the example":
            self.flops = flops_of(recorder.graph), 0
        return returned

    def _compared(
        self, cases: Sequence[Case], tolerance: float | None, dtype: torch.dtype | None
    ) -> Verdict:
        def hold(case: Case, expected: Found) -> Difference:
            recorder = Recorder(self._model, has_rule)
            try:
                after = replace(case, inputs=self.after(case.inputs))
                returned = found_in(run_case(recorder, after, dtype))
            except Exception as error:
                raise SpeedupError(
                    f"Without the {self.what} the model does not run on {case.name}, where it did "
                    f"with them: {type(error).__name__}: {error}; it is left as it was."
                ) from error
            difference = compare(self.as_small(expected, returned), returned, tolerance)
            if not difference.ok:
                raise CaseError(
                    case,
                    f"Without the {self.what} the model differs by {difference.relative:.2e} "
                    f"(relative) in {difference.where} from what it computes when nobody chooses "
                    f"them, on {case.name}; {difference.tolerance:.0e} is allowed."
                    f"{self.hint(expected, difference)} It is left as it was.",
                    runs=True,
                    rounds=difference.rounds,
                )
            if case.name == "the example":
                self.flops = self.flops[0], flops_of(recorder.graph)
            return difference

        states: TwoStates[Found] = TwoStates(self._model, self._original)
        pairs = self._known if dtype == self._own else self._expected(cases, dtype)
        return states.held(pairs, dtype, hold)


def _has_nan(expected: Found) -> bool:
    tensors = expected.tensors.values()
    return any(tensor.is_floating_point() and bool(tensor.isnan().any()) for tensor in tensors)

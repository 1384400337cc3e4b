"""Hold a model without some experts to what it has to compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError, SpeedupError
from prune_speedup.torch.cost import flops_of
from prune_speedup.torch.mixtures.mixture import Mixture
from prune_speedup.torch.mixtures.without import NEVER, WithoutExperts, as_small
from prune_speedup.torch.proof.cases import cases_of
from prune_speedup.torch.proof.compare import IN_DOUBLE, Difference, compare
from prune_speedup.torch.proof.wide import narrowest, widen, widened
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.inputs import Found, found_in
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.tensors import Snapshot

__all__ = ["Proof"]


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the model computes in a case when nobody chooses the removed experts."""

    case: Case
    returned: Found


class Proof:
    """What a model computed before experts were removed, and has to compute after.

    Attributes:
        difference: Where both are farthest apart.
        inputs: What both were run on, for people.
        flops: Of the example, before and after.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        verify_inputs: Sequence[Any],
        left: Mapping[str, tuple[Mixture, list[int]]],
        tolerance: float | None,
    ) -> None:
        """Run the model as it is, with no token sent to the experts that will go."""
        self._model, self._tolerance = model, tolerance
        self._original = Snapshot(model)
        self._removed = {
            name: (mixture, sorted({*range(mixture.experts)} - {*stay}))
            for name, (mixture, stay) in left.items()
        }
        own = narrowest(model)
        self._dtype = torch.float32 if own.itemsize < torch.float32.itemsize else None
        self._cases = cases_of(
            model, example_inputs, verify_inputs, opened=False, repaired=True, asked=False
        )
        self.difference = Difference(0.0, "", 0.0)
        self.inputs: list[str] = []
        self.flops = 0, 0
        self._never = NEVER[0]
        self._expected = self._reference(self._dtype)

    def check(self) -> None:
        """Run the model as it has become, and compare.

        Raises:
            SpeedupError: It computes something else, or does not run.
        """
        try:
            self._compare(self._expected, self._dtype, self._tolerance)
        except _ApartError as apart:
            if self._tolerance is not None or narrowest(self._model).itemsize > 4:
                raise
            # Rounding can be told from an error in numbers that hardly round.
            small = Snapshot(self._model)
            self._original.restore()
            try:
                expected = self._reference(torch.float64)
            except ConfigError:
                raise apart from None  # some kernels take no doubles
            finally:
                small.restore()
            self._compare(expected, torch.float64, IN_DOUBLE)

    def _reference(self, dtype: torch.dtype | None) -> list[_Expected]:
        before = Snapshot(self._model)
        if dtype is not None:
            widen(self._model, dtype)
        try:
            for self._never in NEVER:
                found = [each for case in self._cases if (each := self._run_before(case, dtype))]
                if not any(map(_has_nan, found)):
                    break
            return found
        finally:
            before.restore()

    def _run_before(self, case: Case, dtype: torch.dtype | None) -> _Expected | None:
        recorder = WithoutExperts(self._model, self._removed, self._never)
        try:
            returned = _run(recorder, case, dtype)
        except Exception as error:
            if not case.required:
                return None  # a made-up case that the model does not accept
            raise ConfigError(
                f"The model does not run on {case.name}: {type(error).__name__}: {error}. Give "
                "inputs that model(...) accepts, in the form of the example."
            ) from error
        if case.name == "the example":
            self.flops = flops_of(recorder.graph), 0
        return _Expected(case, returned)

    def _compare(
        self, expected: list[_Expected], dtype: torch.dtype | None, tolerance: float | None
    ) -> None:
        small = Snapshot(self._model)
        if dtype is not None:
            widen(self._model, dtype)
        worst = Difference(0.0, "", 0.0)
        try:
            for each in expected:
                recorder = Recorder(self._model, has_rule)
                try:
                    returned = _run(recorder, each.case, dtype)
                except Exception as error:
                    raise SpeedupError(
                        f"Without the experts the model does not run on {each.case.name}, where it "
                        f"did with them: {type(error).__name__}: {error}; it is left as it was."
                    ) from error
                if each.case.name == "the example":
                    self.flops = self.flops[0], flops_of(recorder.graph)
                difference = compare(as_small(each.returned, returned), returned, tolerance)
                if not difference.ok:
                    raise _ApartError(
                        f"Without the experts the model differs by {difference.relative:.2e} "
                        f"(relative) in {difference.where} from what it computes when nobody "
                        f"chooses them, on {each.case.name}; {difference.tolerance:.0e} is "
                        f"allowed.{_hint(each.returned, difference)} It is left as it was."
                    )
                if not worst.where or difference.weight > worst.weight:
                    worst = difference
        finally:
            small.restore()
        self.difference, self.inputs = worst, [each.case.name for each in expected]


class _ApartError(SpeedupError):
    """Both run, and compute something else."""


def _hint(expected: Found, difference: Difference) -> str:
    tensor = expected.tensors.get(difference.where)
    if tensor is None or tensor.ndim:
        return ""
    return (
        " A loss that spreads tokens evenly depends on how many experts there are: leave it out "
        "of the example (output_router_logits=False in models of transformers)."
    )


def _run(recorder: Recorder, case: Case, dtype: torch.dtype | None) -> Found:
    recorder.wide, recorder.steady = dtype, case.training
    inputs = case.inputs if dtype is None else widened(case.inputs, dtype)
    if case.training:
        return found_in(recorder.train(inputs))
    return found_in(recorder.run(inputs, again=False))


def _has_nan(expected: _Expected) -> bool:
    tensors = expected.returned.tensors.values()
    return any(tensor.is_floating_point() and bool(tensor.isnan().any()) for tensor in tensors)

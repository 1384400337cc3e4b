"""Make a model follow a plan, and prove that it does.

A size may be changed in an attribute or in the source, and a unit may be left alone where neither
helps. Each of these is tried in turn, until the small model does what the plan says and the proof
holds on all that it looks at.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import nn

from prune_core import progress
from prune_core.errors import SpeedupError
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.proof.cases import cases_of
from prune_speedup.torch.proof.masked_reference import Meaning
from prune_speedup.torch.proof.run import Proof, prove
from prune_speedup.torch.proof.two_states import CaseError
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.report import SpeedupReport
from prune_speedup.torch.resize.as_it_is import tells_no_size
from prune_speedup.torch.resize.layers import update_sizes
from prune_speedup.torch.resize.search import Mismatch, Repairs, repair
from prune_speedup.torch.resize.traced_integers import Source
from prune_speedup.torch.tensors import Snapshot, cut_tensors

__all__ = ["CannotFollowError", "Cutting", "Fitting", "timed"]

Cutting = Callable[[nn.Module, Plan, Mapping[str, torch.Tensor], Snapshot | None], None]
"""Leaves of every tensor of a model what a plan keeps, with its masks multiplied in: see
`cut_tensors`."""

_PLANS = 50

_SAID = {
    "trace": "recording a forward",
    "units": "finding which channels belong together",
    "plan": "planning what goes",
    "shrink": "making tensors smaller",
    "verify": "comparing both models",
    "measure": "timing both models",
}


class CannotFollowError(SpeedupError):
    """The forward does not run on smaller tensors, whatever is repaired."""


@dataclass
class Fitting:
    """A plan on its way to a model that follows it, and is proved to.

    Attributes:
        model: What is made smaller.
        example_inputs: What it runs on.
        planned: Makes a plan of a recording of the example, and of the cases that it is given.
        masks: `{tensor name: bool mask}`.
        original: The model before.
        report: Where to note what was done.
        yielding: Whether units that the forward cannot do without are left alone.
        staying: Attributes that must not change.
        also: Cases to be recorded beside the example.
        unfollowed: Cases that the small model does not follow, and why.
        verify_inputs: What the user gives beside the example, if there is a proof.
        unproved: The names of inputs that tell nothing, as the model was not compared on them.
        rounding: The names of cases in which single precision does not tell rounding from error.
        seen: Whether all of the model's own code could be looked at.
        trusting: Whether the forward is taken to follow without a trial: for good, or until a proof
            fails that there will be.
        cutting: What makes the tensors smaller.
    """

    model: nn.Module
    example_inputs: Any
    planned: Callable[[Sequence[Case]], Plan]
    masks: Mapping[str, torch.Tensor]
    original: Snapshot
    report: SpeedupReport
    yielding: bool
    staying: set[Source] = field(default_factory=set)
    also: list[Case] = field(default_factory=list)
    unfollowed: dict[str, str] = field(default_factory=dict)
    verify_inputs: Sequence[Any] | None = None
    unproved: set[str] = field(default_factory=set)
    rounding: set[str] = field(default_factory=set)
    trusting: bool = False
    seen: bool = False
    cutting: Cutting = cut_tensors

    def proved(
        self,
        verify_inputs: Sequence[Any],
        meant: Meaning,
        tolerance: float | None,
        *,
        recording: bool = False,
    ) -> tuple[Plan, Repairs, Proof]:
        """Fit until the proof holds; record the small model meanwhile, if asked."""
        self.verify_inputs = verify_inputs
        plan = self.planned(())
        graph = plan.labelling.graph
        # Of further runs, such as one in training, the proof sees other inputs than the recording.
        self.trusting = graph.first == len(graph.calls) and tells_no_size(graph)
        while True:
            with timed(self.report.seconds, "shrink"):
                fitted, repairs = self.fit(plan)
            try:
                with timed(self.report.seconds, "verify"):
                    proof = prove(
                        self.model,
                        self.example_inputs,
                        verify_inputs,
                        fitted,
                        meant,
                        self.original,
                        tolerance,
                        repairs=repairs,
                        without=self.unfollowed,
                        planned={case.name for case in self.also},
                        rounding=self.rounding,
                        recording=recording,
                        elsewhere=self.seen,
                    )
            except SpeedupError as error:
                self.original.restore()
                if self.trusting:
                    self.trusting = False
                elif isinstance(error, CaseError):
                    plan = self._remedied(plan, error, repairs)
                else:
                    raise
                continue
            unproved = repairs.scaled - {*proof.inputs}
            if not proof.doubtful and not unproved:
                self.report.unfollowed, self.report.narrower = self.unfollowed, proof.narrower
                return fitted, repairs, proof
            self.unproved |= unproved
            self.staying.update(proof.doubtful)
            self.original.restore()

    @property
    def others(self) -> dict[str, Any]:
        """Other inputs, from which it is learnt which sizes are not always the same."""
        if self.verify_inputs is None:
            return {}
        given = self.model, self.example_inputs, self.verify_inputs
        _, *cases = cases_of(*given, opened=False, repaired=True)
        wanted = [each for each in cases if not (each.training or each.name in self.unproved)]
        return {each.name: each.inputs for each in wanted}

    def _remedied(self, plan: Plan, error: CaseError, repairs: Repairs) -> Plan:
        """Do something about a case in which the small model fails; raise if nothing is left."""
        case = error.case
        if case.name not in {"the example", *(each.name for each in self.also)}:
            # What happens there is looked at as what happens on the example.
            self.also.append(case)
            after = case.otherwise if error.shaky else None
            if after is not None and all(each.name != after.name for each in self.also):
                self.also.append(after)  # for that is looked at in its place
                self.rounding.add(after.name)
            return self.planned(self.also)
        if repairs.attributes:
            # An attribute may mean something else, too, where the example does not come.
            self.staying.update(repairs.attributes)
            return plan
        if error.runs or case.required:
            raise error
        self.unfollowed[case.name] = str(error)
        self.also = [each for each in self.also if each.name != case.name]
        return self.planned(self.also)

    def fit(self, plan: Plan) -> tuple[Plan, Repairs]:
        """Cut and repair; where a forward cannot be repaired, leave what it needs, and again."""
        report = self.report
        report.returned = []
        for _ in range(_PLANS):
            before = self.original if plan.labelling.graph.told_by_shapes else None
            self.cutting(self.model, plan, self.masks, before)
            update_sizes(self.model, plan)
            if self.trusting:
                return plan, Repairs()
            repairs = repair(self.model, self.example_inputs, plan, self.others, self.staying)
            if repairs.unresolved is None:
                report.attributes = [
                    (source.module, ".".join(map(str, source.path)), old, new)
                    for source, (old, new) in repairs.attributes.items()
                ]
                report.corrections = repairs.corrections
                return plan, repairs
            self.original.restore()
            less = _without(plan, repairs.unresolved)
            where, why = repairs.unresolved.module, repairs.unresolved.message
            report.returned.append(f"{where}: {why}")
            same = not less.removed.any() or (less.removed == plan.removed).all()
            if not self.yielding or same:
                raise CannotFollowError(
                    f"The forward of {where or 'the model'} does not follow smaller tensors: {why}"
                    + (f" (at first, in {report.returned[0]})" if report.returned[1:] else "")
                )
            plan = less
        raise CannotFollowError(f"No plan fits the model: {report.returned[-1]}")


def _without(plan: Plan, mismatch: Mismatch) -> Plan:
    """Leave alone what changes the sizes around the place that could not be repaired."""
    calls = plan.labelling.graph.calls
    position = min(mismatch.position, len(calls) - 1)
    for reach in (0, 1, 3, 10, len(calls)):
        less = plan
        for call in calls[max(position - reach, 0) : position + reach + 1]:
            for value in (*call.inputs(), *(i for i in call.outputs if i is not None)):
                axes = plan.kept_of_value(value) if value in plan.labelling.flow.values else {}
                less = less.without(value, axes)
        if (less.removed != plan.removed).any():
            return less
    return plan


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time that a block takes to that of a stage, and tell whoever watches."""
    start = perf_counter()
    with progress.stage(_SAID.get(stage, stage)):
        yield
    seconds[stage] = seconds.get(stage, 0.0) + perf_counter() - start

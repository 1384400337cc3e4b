"""Run the small model and the masked one in several ways, and hold them to each other."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError
from prune_speedup.engine.graph import Graph
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.cost import flops_of
from prune_speedup.torch.parts import put
from prune_speedup.torch.proof.cases import cases_of
from prune_speedup.torch.proof.compare import Difference, compare
from prune_speedup.torch.proof.higher_precision import narrowest, widened
from prune_speedup.torch.proof.holding import Seen, Small, held, kept_by
from prune_speedup.torch.proof.inside import Inside
from prune_speedup.torch.proof.masked_reference import Masked, Meaning, zero_already
from prune_speedup.torch.proof.runs import Checking, InStep, Recording, Unseen
from prune_speedup.torch.proof.two_states import (
    CaseError,
    TwoStates,
    Verdict,
    run_case,
    where_it_hardly_rounds,
)
from prune_speedup.torch.record.case import Case
from prune_speedup.torch.record.data_dependent import Decisions
from prune_speedup.torch.record.follower import Follower
from prune_speedup.torch.record.inputs import Found, found_in
from prune_speedup.torch.resize.as_it_is import tells_no_size
from prune_speedup.torch.resize.search import Repairs
from prune_speedup.torch.resize.traced_integers import Source
from prune_speedup.torch.resize.uses import Reads, doubtful, watching
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.tensors import Snapshot

__all__ = ["CaseError", "Proof", "prove"]

_ROUNDS = 4
"""How many times as far apart as rounding has moved the masked model two models may be that work
in half precision: each of them rounds, and not in the same places."""


@dataclass(slots=True)
class Proof:
    """What was seen.

    Attributes:
        difference: The largest between the two models, weighed by what is allowed.
        inputs: What both models were run on, for people.
        inside: How many results of operators were compared.
        flops: Of the small model, on the example, if its calls were looked at there.
        doubtful: Attributes that were changed, and are read for something else in code that none
            of the inputs has reached.
        narrower: What the model returns with fewer channels, by the arguments that ask for it.
        returned: What the small model returned on the example, where it ran in its own numbers.
        recorded: Its forward there, if it was to be recorded.
    """

    difference: Difference
    inputs: list[str]
    inside: int
    flops: int | None
    doubtful: dict[Source, str]
    narrower: dict[str, list[str]] = field(default_factory=dict)
    returned: Found | None = None
    recorded: Graph | None = None


_NUDGE = 64
"""How many units of rounding parameters are moved by, to see what rounding can do.

A sum over hundreds of channels rounds more than once, and evens out what is drawn for each."""

_EXPLAINED = 100
"""How much larger than that a difference may be, and still count as rounding."""


def prove(
    model: nn.Module,
    example_inputs: Any,
    more_inputs: Sequence[Any],
    plan: Plan,
    meant: Meaning,
    original: Snapshot,
    tolerance: float | None,
    *,
    repairs: Repairs,
    without: Collection[str] = (),
    planned: Collection[str] = (),
    rounding: set[str] | None = None,
    recording: bool = False,
    elsewhere: bool = False,
) -> Proof:
    """Compare a small model with what its masks mean.

    Args:
        model: The small model; it is left as it is.
        example_inputs: What it was traced with.
        more_inputs: Other inputs of the same form.
        plan: What was removed.
        meant: What counts as masked.
        original: The model before.
        tolerance: The largest difference allowed; by default what rounding does.
        repairs: What sizes were changed in attributes and in the source.
        without: The names of cases to leave out.
        planned: The names of cases that the plan was made for, beside the example.
        rounding: The names of cases in which an earlier proof had to look at numbers that hardly
            round. Those of this one are added.
        recording: Whether the small model's forward of the example is recorded.
        elsewhere: Whether the look inside may be at another input than the example, as far as the
            model's code tells.

    Raises:
        SpeedupError: They differ.
        ConfigError: The original does not run on inputs that the user gave.
    """
    graph = plan.labelling.graph
    more = [call.target for call in graph.calls[graph.opened :]] if graph.opened is not None else []
    opened = more != [call.target for call in graph.calls[: len(more)]]
    repaired = bool(repairs.attributes or repairs.corrections)
    cases = cases_of(model, example_inputs, more_inputs, opened=opened, repaired=repaired)
    cases = [case for case in cases if case.name not in without]
    own = narrowest(model)
    half = own.itemsize < torch.float32.itemsize
    attributes = list(repairs.attributes)
    if elsewhere and not (half or recording):
        prover = _Prover(model, plan, meant, original, attributes, planned)
        if (proof := _from_outside(prover, model, cases, tolerance, rounding)) is not None:
            return proof
    prover = _Prover(model, plan, meant, original, attributes, planned)
    prover.recording = recording
    if half:
        prover.half = cases[0]
    verdict = where_it_hardly_rounds(model, tolerance, cases, prover.compared, rounding)
    if half:
        prover.check_rounding(cases[0], own, tolerance)
    return prover.proof(verdict)


def _from_outside(
    prover: "_Prover",
    model: nn.Module,
    cases: Sequence[Case],
    tolerance: float | None,
    rounding: set[str] | None,
) -> Proof | None:
    """Look inside on an input that was made up, and at the example only from outside.

    That input is smaller most often. Nothing is returned where it will not do instead, or where
    anything differs: errors tell of the example.
    """
    made_up = next((case for case in cases if case.is_made_up), None)
    if made_up is None or not prover.may_look_elsewhere:
        return None
    prover.sparing = True
    known = set(rounding or ())
    first, *others = cases
    ordered = [made_up, first, *(case for case in others if case is not made_up)]
    try:
        verdict = where_it_hardly_rounds(model, tolerance, ordered, prover.compared, known)
    except CaseError:
        return None
    if prover.strays:
        return None
    verdict.inputs.sort(key=lambda name: _rank(name, cases))
    return prover.proof(verdict)


def _rank(name: str, cases: Sequence[Case]) -> int:
    """Which of the cases it is, or is tried in the place of."""
    for at, case in enumerate(cases):
        tried: Case | None = case
        while tried is not None:
            if tried.name == name:
                return at
            tried = tried.otherwise
    return len(cases)


class _Prover:
    """Runs one model as it was and as it has become.

    Attributes:
        half: What the masked model is to be run on in half precision too.
        recording: Whether the small model's forward of the example is recorded.
        sparing: Whether what follows from compared results is not compared.
        strays: Whether the small model made other calls somewhere than the masked one.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        meant: Meaning,
        original: Snapshot,
        attributes: Collection[Source],
        planned: Collection[str],
    ) -> None:
        self._attributes, self._planned = attributes, planned
        self._inside = 0
        self._flops: int | None = None
        self._looked_in = ""
        self.strays = False
        self._narrower: dict[str, list[str]] = {}
        self._reads: Reads = {}
        self._model = model
        self._plan = plan
        self._meant = meant
        self._states: TwoStates[Seen] = TwoStates(model, original)
        self._last = Small(Found(), Found())
        self._runs_twice = plan.labelling.graph.again is not None
        self._returned: Found | None = None
        self._recorded: Graph | None = None
        self.recording = self.sparing = False
        self._in_single: Found | None = None
        self.half: Case | None = None
        self._in_half: Seen | None = None
        self._zero_already: set[str] | None = None

    def proof(self, verdict: Verdict) -> Proof:
        """What was seen in all cases."""
        assert verdict.inputs
        unsure = doubtful(self._model, self._attributes, self._reads)
        found = verdict.difference, verdict.inputs, self._inside, self._flops
        return Proof(*found, unsure, self._narrower, self._returned, self._recorded)

    def compared(
        self, cases: Sequence[Case], tolerance: float | None, dtype: torch.dtype | None
    ) -> Verdict:
        """Compare the two in some cases, in this type of numbers or in their own.

        A case that was made up is left out where the plan was made for it, too, and rounding alone
        moves the masked model by as much in double: it says nothing of the small one.
        """
        double = narrowest(self._model) == torch.float64 and tolerance is None
        hardly_rounds = double or dtype == torch.float64

        def hold(case: Case, seen: Seen) -> Difference:
            small = self._run_small(case, seen, dtype)
            self._last = small
            if case.name == "the example" and dtype == torch.float32:
                self._in_single = seen.returned
            if case.name == "the example" and dtype is None and not self._runs_twice:
                self._returned, self._recorded = small.returned, small.recorded
            difference = held(case, seen, small, tolerance)
            self.strays = self.strays or seen.inside.lost
            if seen.narrower:
                self._narrower[case.asks] = seen.narrower
            self._inside += seen.inside.forget()
            return difference

        def is_explained(case: Case, seen: Seen, error: CaseError) -> bool:
            may_be = hardly_rounds and not case.required
            error.shaky = may_be and self._is_shaky(case, seen, tolerance, dtype)
            return error.shaky and case.name in self._planned

        masked = self._masked(cases, dtype)
        if self.half is not None and self._in_half is None:
            # For `check_rounding`, and now, for to have the masked model back takes its time.
            ((_, self._in_half),) = self._masked([self.half], None, inside=False)
        return self._states.held(masked, dtype, hold, is_explained)

    def check_rounding(self, case: Case, own: torch.dtype, tolerance: float | None) -> None:
        """Run both in half precision too, where they may differ by what rounding explains.

        Inside, they are held to each other in wider numbers alone: what is computed in single
        precision of a number in half precision is as uncertain as that, and does not look so.
        """
        if (wide := self._in_single) is None:
            (_, seen), *_ = self._masked([case], torch.float32)
            wide = seen.returned
        narrow = self._in_half
        assert narrow is not None
        self._states.become(self._states.small, None)
        small = self._run_small(case, narrow, None)
        tensors = widened(narrow.returned.tensors, torch.float32)
        rounded = compare(wide.tensors, tensors, 1.0)
        allowed = tolerance
        if allowed is None:
            allowed = _ROUNDS * (rounded.relative + torch.finfo(own).eps)
        held(case, narrow, small, allowed, inside=False)
        if not self._runs_twice:
            self._returned = small.returned

    def _is_shaky(
        self,
        case: Case,
        seen: Seen,
        tolerance: float | None,
        dtype: torch.dtype | None,
    ) -> bool:
        """Whether the masked model moves as far when its parameters do by what rounding does.

        Batch norms over a handful of values do that: each divides by a deviation that may be next
        to nothing, and dozens of them make of 1e-16 what can be seen.
        """
        self._states.become(self._states.original, dtype)
        generator = torch.Generator().manual_seed(0)
        for parameter in self._model.parameters():
            if parameter.is_floating_point():
                # By the rounding of the numbers that are computed with: that of half precision
                # would explain anything. Not in place, for a snapshot keeps no copy.
                numbers = parameter.data if dtype is None else widened(parameter.data, dtype)
                noise = torch.randn(parameter.shape, generator=generator).to(numbers)
                eps = torch.finfo(numbers.dtype).eps
                put(parameter, numbers * (1 + _NUDGE * eps * noise), None)
        again = self._run_masked(case, dtype)
        apart = compare(seen.returned, self._last.returned, tolerance)
        kept_apart = seen.apart(self._last.kept, tolerance)
        if not apart.ok:
            found, explained = apart.relative, compare(seen.returned, again.returned).relative
        elif not kept_apart.ok:
            found, explained = kept_apart.relative, seen.apart(again.kept).relative
        else:
            worst, _ = seen.inside.worst()
            found = worst if worst > 1 else inf
            explained = seen.inside.moved_to(again.inside, dtype or narrowest(self._model))
        return explained >= found / _EXPLAINED

    def _masked(
        self, cases: Iterable[Case], dtype: torch.dtype | None, *, inside: bool = True
    ) -> list[tuple[Case, Seen]]:
        """What the masked model does in each case that it accepts; inside too, if asked."""

        def run(case: Case) -> Seen | None:
            try:
                return self._run_masked(case, dtype, inside=inside)
            except Exception as error:
                if not case.required:
                    return None
                raise ConfigError(
                    f"The model does not run on {case.name}: {type(error).__name__}: {error}. "
                    "Give inputs that model(...) accepts, in the form of the example."
                ) from error

        return self._states.expected(cases, dtype, run)

    def _run_masked(self, case: Case, dtype: torch.dtype | None, *, inside: bool = True) -> Seen:
        if self._zero_already is None:  # found out while the model is what it was
            self._zero_already = zero_already(self._model, self._meant.masks)
        noted = Inside(self._plan, all_results=not self.sparing)
        if dtype is None and (run := self._other_run(case)) is not None:
            found = found_in(self._run(run, case, dtype))
            if not isinstance(run, InStep) or run.ended_in_step:
                return Seen(found, kept_by(run), noted, from_outside=True)
        masked = Masked(
            self._model,
            self._plan,
            self._meant,
            self._decisions(case),
            noted.note if inside else None,
            self._start(case),
            self._zero_already,
            # A model that trains may do the same by other code, and other parameters.
            by_place=case.training and self.may_look_elsewhere,
        )
        found = found_in(self._run(masked, case, dtype))
        found.aside = {path: masked.as_small("", each) for path, each in found.aside.items()}
        narrower: list[str] = []
        if case.asks:
            cut = {path: masked.as_small("", each) for path, each in found.tensors.items()}
            narrower = [path for path, each in cut.items() if each is not found.tensors[path]]
            found.tensors = cut
        kept = kept_by(masked)
        kept.tensors = {path: masked.as_small(path, each) for path, each in kept.tensors.items()}
        if inside and not self._looked_in and (case.name == "the example" or masked.found_all):
            self._looked_in = case.name
        return Seen(found, kept, noted, masked.decided, narrower, masked.spread)

    def _other_run(self, case: Case) -> Follower | None:
        """How a case may be run whose results are compared by what is returned alone.

        So it is where all calls of the recording have been looked at on another input, and the
        forward neither tells torch a size nor asks for one: inside, it does to this input what it
        does to that. The model is run as it is, so there must be nothing to mask.
        """
        masked = self._meant.removed or self._meant.masks.keys() - (self._zero_already or ())
        if masked or not self._looked_in or not self.may_look_elsewhere:
            return None
        if case.name == "the example":
            return Unseen(self._model, has_rule)
        is_alike = case.is_made_up and not case.training
        return InStep(self._model, self._plan.labelling.graph) if is_alike else None

    @cached_property
    def may_look_elsewhere(self) -> bool:
        """Whether the forward does inside the same to inputs of any size, as far as is seen.

        No norm may run over a part of what it ran over, and no numbers be kept or decide anything.
        """
        graph, flow = self._plan.labelling.graph, self._plan.labelling.flow
        runs_over_less = any(self._plan.removed[over].any() for _, over in flow.live_norms)
        keeps = graph.written or graph.kept or graph.first < len(graph.calls)
        decides = graph.decisions or graph.left or graph.asks_size
        otherwise = keeps or decides or runs_over_less or self._attributes
        return not otherwise and tells_no_size(graph)

    def _run_small(self, case: Case, seen: Seen, dtype: torch.dtype | None) -> Small:
        run: Follower
        if seen.from_outside:
            run = Unseen(self._model, has_rule)
        elif self.recording and case.name == "the example" and dtype is None:
            run = Recording(self._model, seen.inside, self._decisions(case))
        else:
            counting = case.name == "the example"
            run = Checking(self._model, seen.inside, self._decisions(case), counting=counting)
        try:
            with watching(self._model, self._attributes, self._reads):
                returned = found_in(self._run(run, case, dtype))
        except Exception as error:
            raise CaseError(
                case,
                f"The small model does not run on {case.name}, where the masked one does: "
                f"{type(error).__name__}: {error}; the model is left as it was.",
                runs=False,
            ) from error
        recorded = None
        if isinstance(run, Recording):
            recorded, self._flops = run.graph, flops_of(run.graph)
        elif isinstance(run, Checking) and case.name == "the example":
            self._flops = run.flops
        return Small(returned, kept_by(run), run.decided, recorded)

    def _run(self, run: Follower, case: Case, dtype: torch.dtype | None) -> Any:
        before = None if self._attributes else self._states.before  # those are watched by classes
        return run_case(run, case, dtype, again=self._runs_twice, before=before)

    def _start(self, case: Case) -> int:
        """The first call of the recording of a case, where it was recorded."""
        graph = self._plan.labelling.graph
        starts = {each.name: start for each, start in graph.also}
        known = graph.opened if case.opened else graph.trained if case.training else None
        return starts.get(case.name, known or 0)

    def _decisions(self, case: Case) -> Decisions | None:
        """The recording's decisions are good for the example; other inputs make their own."""
        example = case.name == "the example"
        return self._plan.labelling.graph.decisions if example else None

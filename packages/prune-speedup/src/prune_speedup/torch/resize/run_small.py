"""Run a small model beside the recording of the big one, and see where it does otherwise.

Every call must make what the plan says it makes. Where the integers that a call is told do not,
they are corrected on the spot, so that one run finds all that is to be done.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tag, nn

from prune_core.traversal import named_tensors
from prune_speedup.engine.graph import ALIAS_WRITE, Call
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.parts import give_numbers
from prune_speedup.torch.record.call_sites import Number, Site
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.record.source_places import Place, key_of, place_of_call
from prune_speedup.torch.resize.literals import same_places, wanted_numbers
from prune_speedup.torch.resize.traced_integers import remembering
from prune_speedup.torch.rules import has_rule

__all__ = ["Mismatch", "Need", "Trial", "attempt"]

_WHOLE = {"slice", "alias"}


@dataclass(slots=True)
class Mismatch:
    """The first place where the small model does not do what the plan says.

    Attributes:
        position: Which call of the recording.
        module: The module that was running.
        message: What went wrong, for people.
    """

    position: int
    module: str
    message: str


@dataclass(slots=True)
class Need:
    """A call that was told wrong integers.

    Attributes:
        site: The call.
        place: Where it stands in the source.
        position: The recorded call that came next.
        given: The numbers that it was given.
        changes: The numbers that it should have been given, by their position.
    """

    site: Site
    place: Place
    position: int
    given: tuple[Number, ...]
    changes: dict[int, Number]


@dataclass(slots=True)
class Trial:
    """One run of the small model.

    Attributes:
        needs: The calls that had to be corrected.
        mismatch: Where it could go no further.
    """

    needs: dict[Any, Need]
    mismatch: Mismatch | None

    def reached(self) -> float:
        """The first call of the recording that it does not make; infinity if it makes all."""
        return float("inf") if self.mismatch is None else self.mismatch.position

    def better_than(self, other: "Trial") -> bool:
        """Whether it came further, or as far with less to correct, and with nothing new to."""
        reached = other.reached()
        before, now = other._wrong(reached), self._wrong(reached)
        if self.reached() < reached:
            return False
        return now < before or (now == before and self.reached() > reached)

    def _wrong(self, until: float) -> set[tuple[Any, int]]:
        """The numbers to be corrected up to a call of the recording."""
        return {
            (key, at)
            for key, need in self.needs.items()
            for at in need.changes
            if need.position < until
        }


class Observer:
    """Told of every call of torch that is given numbers; to be overridden."""

    def saw(self, site: Site, given: tuple[Number, ...], changes: Mapping[int, Number]) -> None:
        """Note what a call is given and what it should have been given."""


class _DifferentError(Exception):
    pass


class _Beside:
    """The calls of a recording, found again one by one in another run.

    A copy that is made for the sake of the memory's order may be needed at one size and not at
    the other; it changes nothing, so it is let pass. So is a slice of all that is left, which
    torch does not make.
    """

    def __init__(self, plan: Plan) -> None:
        self.position = 0
        self._next = 0
        self._plan = plan
        self._calls = plan.labelling.graph.calls

    def find(self, call: Call) -> Call | None:
        """The recorded call that this one is; `None` for a copy that was not made before."""
        at = self.position
        while at < len(self._calls) and not _alike(self._calls[at], call):
            if not self._is_passed_over(self._calls[at]):
                break
            at += 1
        else:
            if at < len(self._calls):
                self._next = at + 1
                return self._calls[at]
        if call.name == "clone":
            return None
        if at == len(self._calls):
            raise _DifferentError(f"it makes a call more than before, of {call.name}")
        raise _DifferentError(f"it calls {call.name} where it called {self._calls[at].name} before")

    def go_on(self) -> None:
        """Leave the call that was found behind."""
        self.position = self._next

    def ended(self) -> bool:
        """Whether nothing is left to be found."""
        return all(self._is_passed_over(call) for call in self._calls[self.position :])

    def _is_passed_over(self, call: Call) -> bool:
        if call.name == "slice" and call.outputs[0] is not None:
            return self._plan.shape(call.outputs[0]) == self._plan.shape_of(call.args[0])
        return call.name == "clone" or call.target == ALIAS_WRITE


def _alike(before: Call, now: Call) -> bool:
    names = {before.name, now.name}
    # A slice that takes all there is is none.
    return before.target == now.target or names <= {"view", "_unsafe_view"} or names == _WHOLE


def attempt(
    model: nn.Module, example_inputs: Any, plan: Plan, observer: Observer | None = None
) -> Trial:
    """Run the small model beside the recording, correcting integers on the way."""
    graph = plan.labelling.graph
    beside, read = _Beside(plan), plan.read
    needs: dict[Any, Need] = {}

    def watch(recorder: Recorder, call: Call, result: Any) -> None:
        before = beside.find(call)
        if before is None:
            return
        if len(before.outputs) != len(call.outputs):
            raise _DifferentError(
                f"{call.name} makes {len(call.outputs)} pieces where it made {len(before.outputs)}"
            )
        for old, new in zip(before.outputs, call.outputs, strict=True):
            if old in read and new is not None:
                shape = recorder.graph.metas[new].shape
                if not plan.fits(old, shape):
                    raise _DifferentError(
                        f"{call.name} makes {shape} where {plan.shape(old)} is expected"
                    )
        if before.name == "slice" and not same_places(plan, before, call.args):
            raise _DifferentError("slice takes other indices than before")
        if _numbers(before) != _numbers(call):
            raise _DifferentError(f"{call.name} is given other numbers than before")
        beside.go_on()

    def rewrite(site: Site, given: tuple[Number, ...]) -> Mapping[int, Number]:
        with torch._C._DisableTorchDispatch():  # what is asked of the plan is no part of the model
            changes = wanted_numbers(plan, site, beside.position, given)
        if changes:
            place = place_of_call()
            need = Need(site, place, beside.position, given, dict(changes))
            needs.setdefault((site, key_of(place)), need)
        if observer is not None:
            observer.saw(site, given, changes)
        return changes

    computing = not graph.told_by_shapes
    recorder = Recorder(model, has_rule, watch, rewrite, graph.decisions, computing=computing)
    message = ""
    try:
        with remembering(model):
            recorder.run(example_inputs, again=graph.again is not None)
            if graph.trained is not None:
                recorder.run_training(example_inputs, strict=True)
            if graph.opened is not None:
                recorder.run_open(example_inputs, strict=True)
            for case, _ in graph.also:
                recorder.run_also(case, strict=True)
    except _DifferentError as error:
        message = str(error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    if not computing:
        recorder.give_numbers()
        if recorder.lacking and give_numbers(named_tensors(model).values()):
            return attempt(model, example_inputs, plan, observer)
    if not message and not beside.ended():
        message = "it makes fewer calls than before"
    if not message:
        return Trial(needs, None)
    return Trial(needs, Mismatch(beside.position, recorder.reached, message))


def _numbers(call: Call) -> list[float]:
    """Numbers that are no sizes: whatever is not whole, and the operands of arithmetic."""
    every: list[int | float] = []
    _gather((*call.args, *call.kwargs.values()), every)
    if not every or Tag.pointwise in getattr(call.target, "tags", ()):
        return every
    return [number for number in every if type(number) is float]


def _gather(tree: Iterable[Any], numbers: list[int | float]) -> None:
    for item in tree:
        if isinstance(item, list | tuple):
            _gather(item, numbers)
        elif isinstance(item, int | float) and not isinstance(item, bool):
            numbers.append(item)

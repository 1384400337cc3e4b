"""Make a forward agree with its smaller tensors: find the sizes that it has written down.

The small model is run beside the recording of the old one. Every call must make what the plan
says it makes; where the integers that a call is told do not, they are corrected on the spot, so
that one run finds all that is to be done. An integer that a module keeps as an attribute
(`num_heads`) is then changed there, in all modules of a kind at once; the others are corrected
at the call (see `corrections`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tag, nn

from prune_speedup.engine.graph import ALIAS_WRITE, Call
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.call_sites import Number, Site
from prune_speedup.torch.record.inputs import tensors_in
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.resize.corrections import correct
from prune_speedup.torch.resize.literals import same_places, wanted_numbers
from prune_speedup.torch.rules import has_rule

__all__ = ["Mismatch", "Repairs", "repair"]

_WHOLE = {"slice", "alias"}
_ROUNDS = 30
_FEW = 4

Attribute = tuple[type[nn.Module], str]


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
    """A call that was told wrong integers."""

    site: Site
    given: tuple[Number, ...]
    changes: dict[int, Number]

    def for_any_batch(self, batch: int) -> dict[int, Number]:
        """The changes, without a size that the others leave no choice of.

        It may be a multiple of the batch, as in `view(batch * 16, 3, 3)`. Where the batch has an
        axis of its own it is not, and a size that is told also holds for an empty batch.
        """
        reshapes = self.site.function in ("view", "reshape")
        others = [number for at, number in enumerate(self.given) if at not in self.changes]
        alone = batch > 1 and batch in others
        if reshapes and len(self.changes) == 1 and -1 not in self.given and not alone:
            return dict.fromkeys(self.changes, -1)
        return self.changes


@dataclass(slots=True)
class Repairs:
    """What was changed besides tensors, and what could not be.

    Attributes:
        attributes: (module, attribute, old, new).
        corrections: The calls whose integers are corrected.
        unresolved: A mismatch that nothing helped.
    """

    attributes: list[tuple[str, str, int, int]] = field(default_factory=list)
    corrections: list[Site] = field(default_factory=list)
    unresolved: Mismatch | None = None


@dataclass(slots=True)
class _Trial:
    """One run of the small model: what had to be corrected and how far it came."""

    needs: dict[Site, Need]
    mismatch: Mismatch | None

    def reached(self) -> float:
        return float("inf") if self.mismatch is None else self.mismatch.position


def repair(model: nn.Module, example_inputs: Any, plan: Plan) -> Repairs:
    """Repair until the small model does what the plan says, or nothing more helps."""
    repairs = Repairs()
    trial = _try(model, example_inputs, plan)
    for _ in range(_ROUNDS):
        if not trial.needs and trial.mismatch is None:
            break
        better = _set_attributes(model, example_inputs, plan, trial, repairs)
        if better is trial:
            break
        trial = better
    if trial.mismatch is None:
        batch = next((t.shape[0] for _, t in tensors_in(example_inputs) if t.ndim), 1)
        for need in trial.needs.values():
            correct(model, need.site, need.for_any_batch(batch))
            repairs.corrections.append(need.site)
        if trial.needs:
            trial = _try(model, example_inputs, plan)
    if trial.mismatch is None and trial.needs:
        need = next(iter(trial.needs.values()))
        trial.mismatch = Mismatch(0, need.site.module, f"{need.site.function} stays wrong")
    repairs.unresolved = trial.mismatch
    return repairs


def _set_attributes(
    model: nn.Module, example_inputs: Any, plan: Plan, trial: _Trial, repairs: Repairs
) -> _Trial:
    """Change attributes that explain wrong integers, if that gets the forward further."""
    suspects = _suspects(model, plan, trial)
    for keys in _subsets(list(suspects)):
        chosen = {key: suspects[key] for key in keys}
        changed = [
            (name, attribute, vars(model.get_submodule(name))[attribute], new)
            for (_, attribute), places in chosen.items()
            for name, new in places.items()
        ]
        for name, attribute, _, new in changed:
            setattr(model.get_submodule(name), attribute, new)
        after = _try(model, example_inputs, plan)
        further = after.reached() > trial.reached()
        if further or (after.reached() == trial.reached() and len(after.needs) < len(trial.needs)):
            repairs.attributes += changed
            return after
        for name, attribute, old, _ in changed:
            setattr(model.get_submodule(name), attribute, old)
    return trial


def _subsets(keys: list[Attribute]) -> Iterator[tuple[Attribute, ...]]:
    """The most first: all of several attributes that hold one number may be meant, or some."""
    for size in range(len(keys), 0, -1):
        if len(keys) <= _FEW or size in (len(keys), len(keys) - 1, 1):
            yield from combinations(keys, size)


def _suspects(model: nn.Module, plan: Plan, trial: _Trial) -> dict[Attribute, dict[str, int]]:
    """Attributes that hold a wrong integer: {(type, name): {module: what it must be}}."""
    suspects: dict[Attribute, dict[str, int]] = {}
    for need in trial.needs.values():
        for at, new in need.changes.items():
            if isinstance(new, int):
                _suspect(model, need.site.module, need.given[at], new, suspects)
    if trial.mismatch is not None:
        for old, new in _changes(plan, trial.mismatch.position).items():
            _suspect(model, trial.mismatch.module, old, new, suspects)
    return suspects


def _suspect(
    model: nn.Module,
    name: str,
    old: Number,
    new: int,
    suspects: dict[Attribute, dict[str, int]],
) -> None:
    """The innermost module, from this one outwards, that keeps the integer."""
    while True:
        module = model.get_submodule(name)
        found = [key for key, value in vars(module).items() if type(value) is int and value == old]
        for attribute in found:
            suspects.setdefault((type(module), attribute), {})[name] = new
        if found or not name:
            return
        name = name.rpartition(".")[0]


def _changes(plan: Plan, position: int) -> dict[int, int]:
    """Old sizes and the new ones around a call."""
    calls = plan.labelling.graph.calls
    changes: dict[int, int] = {}
    for call in calls[max(position - 1, 0) : position + 2]:
        for value in [*call.inputs(), *(i for i in call.outputs if i is not None)]:
            before = plan.labelling.graph.metas[value].shape
            changes |= {a: b for a, b in zip(before, plan.shape(value), strict=True) if a != b}
    return changes


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


def _try(model: nn.Module, example_inputs: Any, plan: Plan) -> _Trial:
    """Run the small model beside the recording, correcting integers on the way."""
    graph = plan.labelling.graph
    beside, read = _Beside(plan), plan.read
    needs: dict[Site, Need] = {}

    def watch(recorder: Recorder, call: Call) -> None:
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
        if before.name == "slice" and not same_places(plan, before, call):
            raise _DifferentError("slice takes other indices than before")
        if _numbers(before) != _numbers(call):
            raise _DifferentError(f"{call.name} is given other numbers than before")
        beside.go_on()

    def rewrite(site: Site, given: tuple[Number, ...]) -> Mapping[int, Number]:
        with torch._C._DisableTorchDispatch():  # what is asked of the plan is no part of the model
            changes = wanted_numbers(plan, site, beside.position, given)
        if changes:
            needs.setdefault(site, Need(site, given, dict(changes)))
        return changes

    recorder = Recorder(model, has_rule, watch, rewrite, graph.decisions)
    message = ""
    try:
        recorder.run(example_inputs)
        if graph.trained is not None:
            recorder.run_training(example_inputs, strict=True)
        if graph.opened is not None:
            recorder.run_open(example_inputs, strict=True)
    except _DifferentError as error:
        message = str(error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    if not message and not beside.ended():
        message = "it makes fewer calls than before"
    if not message:
        return _Trial(needs, None)
    return _Trial(needs, Mismatch(beside.position, recorder.reached, message))


def _numbers(call: Call) -> list[float]:
    """Numbers that are no sizes: whatever is not whole, and the operands of arithmetic."""
    every = _plain((call.args, tuple(call.kwargs.values())))
    if Tag.pointwise in getattr(call.target, "tags", ()):
        return list(every)
    return [number for number in every if type(number) is float]


def _plain(tree: Any) -> Iterator[int | float]:
    if isinstance(tree, list | tuple):
        for item in tree:
            yield from _plain(item)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield tree

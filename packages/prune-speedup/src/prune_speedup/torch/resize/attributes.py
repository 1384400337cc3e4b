"""Sizes that modules keep as attributes, such as `num_heads`: which of them have to change.

That an attribute holds the old size does not make it that size. It is changed only if its integer
is what a call was told (see `origins`), or, where that cannot be followed, if changing it and
nothing else is what makes the forward agree. In both cases nothing else may come to disagree: an
attribute that is also a number of rounds, say, stays, and the calls are corrected instead.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.call_sites import Number
from prune_speedup.torch.resize.run_small import Mismatch, Trial, attempt
from prune_speedup.torch.resize.traced_integers import Source, read, solved, write

__all__ = ["Changed", "set_attributes"]

_ROUNDS = 30

Changed = dict[Source, tuple[int, int]]
"""What became of integers that modules keep: the old one and the new one."""


def set_attributes(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    trial: Trial,
    changed: Changed,
    staying: Collection[Source] = (),
) -> Trial:
    """Change attributes as long as that makes the forward agree better.

    Args:
        model: The small model.
        example_inputs: What it runs on.
        plan: What it has to do.
        trial: How it does it now.
        changed: What was changed so far; what is changed here is added.
        staying: Attributes that must not change.

    Returns:
        How it does it afterwards.
    """
    for _ in range(_ROUNDS):
        if not trial.needs and trial.mismatch is None:
            break
        better = _better(model, example_inputs, plan, trial, changed, staying)
        if better is None:
            break
        trial = better
    return trial


def _better(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    trial: Trial,
    changed: Changed,
    staying: Collection[Source],
) -> Trial | None:
    followed = _followed(model, trial, {}, ())
    proposals = [followed, *_by_kind(model, followed), *_suspected(model, plan, trial)]
    tried: list[Mapping[Source, int]] = []
    for proposal in proposals:
        proposal = {source: new for source, new in proposal.items() if source not in staying}
        if not proposal or proposal in tried:
            continue
        tried.append(proposal)
        old = {source: read(model, source) for source in proposal}
        after = _tried(model, example_inputs, plan, proposal)
        if not after.better_than(trial):
            # What it puts right may put something else wrong that is made of another attribute too.
            ratios = {(old[source], new) for source, new in proposal.items()}
            more = {**_followed(model, after, proposal, ratios), **proposal}
            if len(more) > len(proposal) and more.keys().isdisjoint(staying):
                old = {source: read(model, source) for source in more} | old
                proposal, after = more, _tried(model, example_inputs, plan, more)
        if after.better_than(trial):
            for source, new in proposal.items():
                changed[source] = changed.get(source, (old[source], 0))[0], new
            return after
        for source, before in old.items():
            write(model, source, before)
    return None


def _tried(
    model: nn.Module, example_inputs: Any, plan: Plan, proposal: Mapping[Source, int]
) -> Trial:
    for source, new in proposal.items():
        write(model, source, new)
    return attempt(model, example_inputs, plan)


def _followed(
    model: nn.Module,
    trial: Trial,
    known: Mapping[Source, int],
    ratios: Collection[tuple[int, int]],
) -> dict[Source, int]:
    """What the attributes must be from which calls got wrong integers, with some that are known."""
    found: dict[Source, int] = {}
    split: set[Source] = set()
    needs = [
        (need.given[at], new) for need in trial.needs.values() for at, new in need.changes.items()
    ]
    # What is told unchanged comes first: it says what the factors of the others have become.
    for alone in (True, False):
        for told, wanted in needs:
            so_far = known if alone else {**known, **found}
            more = solved(model, told, wanted, so_far, ratios, alone=alone)
            for source, value in (more or {}).items():
                if found.setdefault(source, value) != value:
                    split.add(source)
    return {source: value for source, value in found.items() if source not in split}


def _by_kind(model: nn.Module, proposal: Mapping[Source, int]) -> Iterator[dict[Source, int]]:
    """One attribute at a time, in all modules of a class at once."""
    kinds: dict[Any, dict[Source, int]] = defaultdict(dict)
    for source, value in proposal.items():
        kinds[type(model.get_submodule(source.module)), source.path][source] = value
    yield from kinds.values()
    if len(kinds) > 1:
        for source, value in proposal.items():
            yield {source: value}


def _suspected(model: nn.Module, plan: Plan, trial: Trial) -> Iterator[dict[Source, int]]:
    """Attributes on the way to a call that hold its wrong integer, one kind at a time."""
    kinds: dict[Any, list[dict[Source, int]]] = defaultdict(list)

    def suspect(name: str, old: Number, new: Number) -> None:
        module = model.get_submodule(name)
        for key, value in vars(module).items():
            if type(value) is int and value == old and isinstance(new, int):
                alternatives, source = kinds[type(module), key], Source(name, (key,))
                if not any(each.setdefault(source, new) == new for each in alternatives):
                    alternatives.append({source: new})
        if name:
            suspect(name.rpartition(".")[0], old, new)

    for need in trial.needs.values():
        for at, new in need.changes.items():
            suspect(need.site.module, need.given[at], new)
    if trial.mismatch is not None:
        for old, new in _changes(plan, trial.mismatch):
            suspect(trial.mismatch.module, old, new)
    for alternatives in kinds.values():
        yield from alternatives


def _changes(plan: Plan, mismatch: Mismatch) -> set[tuple[int, int]]:
    """Old sizes and the new ones around a call."""
    calls = plan.labelling.graph.calls
    changes: set[tuple[int, int]] = set()
    for call in calls[max(mismatch.position - 1, 0) : mismatch.position + 2]:
        for value in [*call.inputs(), *(i for i in call.outputs if i is not None)]:
            before = plan.labelling.graph.metas[value].shape
            changes |= {(a, b) for a, b in zip(before, plan.shape(value), strict=True) if a != b}
    return changes

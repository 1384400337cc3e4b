"""Make a forward agree with its smaller tensors: find the sizes that it has written down.

The small model is run beside the recording of the old one. Every call must make what the plan
says it makes; at the first that does not, the integer behind it is looked for: an attribute of
the module if there is one (`num_heads`), otherwise the call itself is corrected (see
`corrections`). What was found for one module is done for all of its kind at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tag, nn

from prune_core.graph.ir import Call
from prune_core.graph.rules import has_rule
from prune_core.graph.sites import Site
from prune_core.graph.trace import Recorder
from prune_core.speedup.corrections import correct
from prune_core.speedup.integers import wanted_integers
from prune_core.speedup.plan import Plan

__all__ = ["Mismatch", "Repairs", "first_mismatch", "repair"]

_MOST = 300


@dataclass(slots=True)
class Mismatch:
    """The first place where the small model does not do what the plan says.

    Attributes:
        position: Which call of the recording.
        site: The call of torch that was running, if it is one that is told sizes.
        given: The integers it was told.
        module: The module that was running.
        message: What went wrong, for people.
    """

    position: int
    site: Site | None
    given: tuple[int, ...]
    module: str
    message: str


@dataclass(slots=True)
class Repairs:
    """What was changed besides tensors, and what could not be.

    Attributes:
        attributes: (module, attribute, old, new).
        corrections: (site, {position: integer}).
        unresolved: A mismatch that nothing helped.
    """

    attributes: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    corrections: list[tuple[Site, dict[int, int]]] = field(default_factory=list)
    unresolved: Mismatch | None = None


class _Different(Exception):
    pass


def first_mismatch(model: nn.Module, example_inputs: Any, plan: Plan) -> Mismatch | None:
    """Run the small model and compare it, call by call, with what is expected of it."""
    expected = plan.labelling.graph.calls

    def watch(recorder: Recorder, call: Call) -> None:
        position = len(recorder.graph.calls) - 1
        if position >= len(expected):
            raise _Different(f"it makes a call more than before, of {call.name}")
        before = expected[position]
        if str(before.target) != str(call.target):
            raise _Different(f"it calls {call.name} where it called {before.name} before")
        shapes = [None if i is None else recorder.graph.metas[i].shape for i in call.outputs]
        wanted = plan.shapes(before)
        if shapes != wanted:
            raise _Different(f"{call.name} makes {shapes} where {wanted} is expected")
        if _numbers(before) != _numbers(call):
            raise _Different(f"{call.name} is given other numbers than before")

    recorder = Recorder(model, has_rule, watch)
    try:
        recorder.run(example_inputs)
    except _Different as error:
        return _mismatch(recorder, len(recorder.graph.calls) - 1, str(error))
    except Exception as error:
        return _mismatch(recorder, len(recorder.graph.calls), f"{type(error).__name__}: {error}")
    if len(recorder.graph.calls) != len(expected):
        return _mismatch(recorder, len(recorder.graph.calls), "it makes fewer calls than before")
    return None


def _mismatch(recorder: Recorder, position: int, message: str) -> Mismatch:
    sites = recorder.sites
    return Mismatch(position, sites.site, sites.given, recorder.reached, message)


def _numbers(call: Call) -> list[float]:
    """Numbers that are no sizes: whatever is not whole, and the operands of arithmetic."""
    whole = Tag.pointwise in getattr(call.target, "tags", ())
    return [
        number
        for number in _plain((call.args, tuple(call.kwargs.values())))
        if isinstance(number, float) or whole
    ]


def _plain(tree: Any) -> Iterator[float]:
    if isinstance(tree, list | tuple):
        for item in tree:
            yield from _plain(item)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield tree


def repair(model: nn.Module, example_inputs: Any, plan: Plan) -> Repairs:
    """Repair until the small model does what the plan says, or nothing more helps."""
    repairs = Repairs()
    found = first_mismatch(model, example_inputs, plan)
    for _ in range(_MOST):
        if found is None:
            return repairs
        better = _improve(model, example_inputs, plan, found, repairs)
        if better is found:
            break
        found = better
    repairs.unresolved = found
    return repairs


def _improve(
    model: nn.Module, example_inputs: Any, plan: Plan, found: Mismatch, repairs: Repairs
) -> Mismatch | None:
    """Do one thing that gets the forward further, or return the mismatch as it is."""
    wanted = wanted_integers(plan, found.site, found.position, found.given)
    for owner, name in _suspects(model, plan, found, wanted):
        changed = _set_attribute(model, plan, owner, name, found, wanted)
        after = first_mismatch(model, example_inputs, plan)
        if after is None or after.position > found.position:
            repairs.attributes += [(m, name, old, new) for m, old, new in changed]
            return after
        for module, old, _ in changed:
            setattr(model.get_submodule(module), name, old)
    if found.site is None or not wanted:
        return found
    undo: list[Callable[[], None]] = []
    made: list[tuple[Site, dict[int, int]]] = []
    for site, integers in _alike(model, plan, found.site, found.site, wanted):
        undo.append(correct(model, site, integers))
        made.append((site, integers))
    after = first_mismatch(model, example_inputs, plan)
    if after is None or after.position > found.position:
        repairs.corrections += made
        return after
    for each in reversed(undo):
        each()
    return found


def _suspects(
    model: nn.Module, plan: Plan, found: Mismatch, wanted: dict[int, int]
) -> Iterator[tuple[str, str]]:
    """Integer attributes, of the module and of those around it, that hold an old size."""
    if found.site is not None:
        old = {found.given[position] for position in wanted}
    else:
        old = set(_changes(plan, found.position))
    name = found.module
    while True:
        for attribute, value in vars(model.get_submodule(name)).items():
            if isinstance(value, int) and not isinstance(value, bool) and value in old:
                yield name, attribute
        if not name:
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


def _set_attribute(
    model: nn.Module, plan: Plan, owner: str, name: str, found: Mismatch, wanted: dict[int, int]
) -> list[tuple[str, Any, Any]]:
    """Give an attribute its new size, here and in every module of this kind."""
    changed: list[tuple[str, Any, Any]] = []
    module = model.get_submodule(owner)
    old = getattr(module, name)
    if found.site is None:
        new = _changes(plan, found.position)[old]
        setattr(module, name, new)
        return [(owner, old, new)]
    tail = found.site.module[len(owner) :]
    for other, sibling in model.named_modules():
        if type(sibling) is not type(module) or name not in vars(sibling):
            continue
        site = found.site._replace(module=(other + tail).removeprefix("."))
        integers = dict(_alike(model, plan, found.site, site, wanted, only=True)).get(site, {})
        given = found.given if site == found.site else _given(plan, site)
        now = vars(sibling)[name]
        new = next((n for at, n in integers.items() if given[at] == now), None)
        if new is not None:
            setattr(sibling, name, new)
            changed.append((other, now, new))
    return changed


def _alike(
    model: nn.Module,
    plan: Plan,
    found: Site,
    site: Site,
    wanted: dict[int, int],
    *,
    only: bool = False,
) -> Iterator[tuple[Site, dict[int, int]]]:
    """The same call in this module, or in all modules of its kind, and its new integers."""
    kind = type(model.get_submodule(found.module))
    for name, module in model.named_modules():
        if type(module) is not kind or (only and name != site.module):
            continue
        here = found._replace(module=name)
        if here == found:
            yield here, wanted
        elif given := _given(plan, here):
            integers = wanted_integers(plan, here, 0, given)
            if integers:
                yield here, {at: n for at, n in integers.items() if at in wanted}


def _given(plan: Plan, site: Site) -> tuple[int, ...]:
    for call in plan.labelling.graph.calls:
        if call.site == site:
            return call.given
    return ()

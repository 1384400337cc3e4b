"""What taking out does to the module tree, in plain values, and how to do it to another model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from prune_core.errors import SpeedupError
from prune_speedup.torch.depth.calls import Seen
from prune_speedup.torch.depth.standins import Skip, StandIn, Zero
from prune_speedup.torch.model_config.numbers import PER_LAYER, overrides_of
from prune_speedup.torch.saving import put_config

__all__ = ["Instead", "Step", "instead_of"]

Settings = list[tuple[list[str | int], int | list[str | int | float | bool | None]]]
_DEPTH = 8


@dataclass(slots=True)
class Instead:
    """The stand-in that a module is replaced by.

    Attributes:
        kind: `"skip"` or `"zero"`.
        position: See `StandIn`.
        name: See `StandIn`.
        form: See `StandIn`, as JSON.
        axes: See `Zero`.
    """

    kind: str
    position: int
    name: str
    form: str
    axes: list[int] = field(default_factory=list)

    def made(self, instead: nn.Module) -> StandIn:
        """Return the stand-in for a module."""
        form = json.loads(self.form)
        if not _is_form(form) or self.kind not in ("skip", "zero"):
            raise SpeedupError(f"{self.kind!r} that returns {self.form} can stand for no module.")
        if self.kind == "skip":
            return Skip(self.position, self.name, form, instead)
        return Zero(self.position, self.name, form, self.axes, instead)


@dataclass(slots=True)
class Step:
    """Some blocks and branches that are taken out together.

    Attributes:
        shortened: The entries that stay of each `ModuleList` and `Sequential` that gets shorter.
        taken: The names of those that do not.
        instead: The stand-ins, by the name of the module that each replaces.
        counted: Lists whose entries know their own position, and are told the new one.
        config: `{module: [(keys, value), ...]}` of the configs that modules carry.
    """

    shortened: dict[str, list[int]] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    instead: dict[str, Instead] = field(default_factory=dict)
    counted: list[str] = field(default_factory=list)
    config: dict[str, Settings] = field(default_factory=dict)

    def now(self, name: str) -> str | None:
        """Return what a module or a tensor is called afterwards; None if it is gone."""
        return _renamed(name, self.shortened, (*self.instead, *self.taken))

    def apply(self, model: nn.Module) -> None:
        """Do it to a model that still has everything.

        Raises:
            SpeedupError: The model has no such modules.
        """
        modules = dict(model.named_modules(remove_duplicate=False))
        rows = {name: _entries(modules, name) for name in {*self.shortened, *self.counted}}
        for name in self.instead:
            if not name or name not in modules:
                raise SpeedupError(f"it replaces {name!r}, and the model has no such module.")
        counters = {name: _counters(rows[name]) for name in self.counted}
        for name, instead in self.instead.items():
            parent, _, leaf = name.rpartition(".")
            modules[parent]._modules[leaf] = instead.made(modules[name])
        for name, kept in self.shortened.items():
            row = modules[name]._modules
            if not kept or kept != sorted({*kept} & {*range(len(row))}) or len(kept) == len(row):
                raise SpeedupError(f"it keeps {kept} of {name!r}, which has {len(row)} entries.")
            # What stands in for an entry of this list stands in it only now.
            entries = [(key, row[key]) for at, key in enumerate(row) if at in set(kept)]
            numbered = all(key == str(at) for at, key in enumerate(row))
            row.clear()
            row.update((str(at) if numbered else key, e) for at, (key, e) in enumerate(entries))
        for found in counters.values():
            _count_anew(modules, model, found)
        for name, settings in self.config.items():
            config = getattr(modules.get(name), "config", None)
            if config is None:
                raise SpeedupError(f"it changes the config of {name!r}, which has none.")
            for keys, value in settings:
                _check_setting(config, keys, value)
            values: Any = {tuple(keys): value for keys, value in settings}
            put_config(model, config, values)


def _is_form(form: Any, depth: int = 0) -> bool:
    if type(form) is not list or not form or depth > _DEPTH:
        return False
    kind, *rest = form
    if kind in ("tuple", "list"):
        return all(_is_form(each, depth + 1) for each in rest)
    if kind == "input":
        return [type(each) for each in rest] == [int, str]
    plain = isinstance(rest[0], int | float | str | bool | None) if len(rest) == 1 else False
    return form == ["hidden"] or (kind == "plain" and plain)


def instead_of(kind: str, seen: Seen) -> Instead:
    """Return the stand-in for a module of a block, or of a branch, that was used so."""
    form = json.dumps(seen.form)
    if kind == "block":
        return Instead("skip", seen.position, seen.name, form)
    assert seen.given is not None
    assert seen.returned is not None
    axes = _axes(seen.given[0], seen.returned[0])
    return Instead("zero", seen.position, seen.name, form, axes)


def _axes(given: Sequence[int], returned: Sequence[int]) -> list[int]:
    """How the lengths of what is returned follow from those of what is given; see `Zero`."""
    axes = []
    for at, length in enumerate(returned):
        own = given[at] if at < len(given) else 0
        parts = round(own / length) if length else 0
        if own == length:
            axes.append(0)
        # Places shrink by a whole factor; channels, the second axis of an image, are what they are.
        elif (
            at > 1 and len(given) == len(returned) > 3 and parts > 1 and -(own // -parts) == length
        ):
            axes.append(-parts)
        else:
            axes.append(length)
    return axes


def _entries(modules: Mapping[str, nn.Module], name: str) -> list[nn.Module]:
    row = modules.get(name)
    if not isinstance(row, nn.ModuleList | nn.Sequential):
        raise SpeedupError(f"it shortens {name!r}, and the model has no such list of modules.")
    return [*row.children()] if len([*row.children()]) == len(row) else [*row]


_Counter = tuple[str, int, list[tuple[int, nn.Module]]]
"""An attribute, what it is more than the position, and who holds it at which position."""


def _counters(row: Sequence[nn.Module]) -> list[_Counter]:
    """Find the attributes in which the entries of a list write down where they stand.

    Such as `layer_idx`, by which an attention finds its keys and values in a cache:

        layers.0.self_attn.layer_idx == 0, layers.1.self_attn.layer_idx == 1, …
    """
    held: dict[tuple[str, str], list[tuple[int, nn.Module, int]]] = defaultdict(list)
    for at, entry in enumerate(row):
        for path, module in entry.named_modules():
            for key, value in vars(module).items():
                if type(value) is int:
                    held[path, key].append((at, module, value))
    return [
        (key, holders[0][2] - holders[0][0], [(at, module) for at, module, _ in holders])
        for (_, key), holders in held.items()
        if len(holders) > 1 and len({value - at for at, _, value in holders}) == 1
    ]


def _count_anew(
    modules: Mapping[str, nn.Module], model: nn.Module, counters: Iterable[_Counter]
) -> None:
    """Tell those that are still there which of them they are."""
    there = {id(module) for module in model.modules()}
    for key, more, holders in counters:
        present = [module for _, module in holders if id(module) in there]
        for at, module in enumerate(present):
            setattr(module, key, at + more)


def _check_setting(config: Any, keys: Sequence[str | int], value: Any) -> None:
    """Refuse what fewer layers can make of no config: a step may come from a file."""
    old = config
    for key in keys:
        if key == PER_LAYER:
            old = overrides_of(old)
        elif isinstance(key, int) and isinstance(old, list) and 0 <= key < len(old):
            old = old[key]
        else:
            old = vars(old).get(key) if hasattr(old, "__dict__") else None
    if type(value) is int:
        fits = type(old) is int and 0 <= value <= old
    elif isinstance(old, list) and isinstance(value, list) and len(value) <= len(old):
        most = max((each for each in old if type(each) is int), default=-1)
        fits = all(each in old or (type(each) is int and 0 <= each <= most) for each in value)
    elif isinstance(old, dict) and isinstance(value, dict):
        fits = all(said in old.values() for said in value.values())
    else:
        fits = False
    if not fits or any(str(key).startswith("_") for key in keys):
        raise SpeedupError(
            f"it sets {'.'.join(map(str, keys))!r} in a config to {value}, and fewer layers make "
            f"that of no {type(old).__name__}."
        )


def _renamed(
    name: str, shortened: Mapping[str, Sequence[int]], gone: Collection[str]
) -> str | None:
    if any(name == each or name.startswith(f"{each}.") for each in gone):
        return None
    for row, kept in shortened.items():
        start = f"{row}." if row else ""
        if name.startswith(start):
            entry, dot, rest = name.removeprefix(start).partition(".")
            if entry.isdigit():
                if int(entry) not in kept:
                    return None
                renamed = f"{start}{list(kept).index(int(entry))}{dot}{rest}"
                others = {other: k for other, k in shortened.items() if other != row}
                return _renamed(renamed, others, ()) if others else renamed
    return name

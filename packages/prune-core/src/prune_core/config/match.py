"""From checked entries and the modules of a model to settings per module.

A model is here only a list of names and class names, so every framework shares this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prune_core.config.keys import PRUNING, Purpose
from prune_core.config.names import without_wrappers
from prune_core.config.parse import Entry
from prune_core.errors import ConfigError, did_you_mean, nearest

__all__ = ["Algorithm", "ModuleInfo", "match"]

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What matching knows of a module.

    Attributes:
        name: Its name; a module that stands in several places goes by the first.
        type_name: Its class name.
        types: Its class name and those of its bases, the most special first.
        aliases: Its other names.
        has_weight: Whether it has a weight of its own.
        whole_channels: Whether it can lose whole channels only, which lie in several tensors.
        lacks: A sentence that says why it is not pruned, where one would expect it to be.
    """

    name: str
    type_name: str
    types: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    has_weight: bool = True
    whole_channels: bool = False
    lacks: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All names that a user may call it by."""
        return (self.name, *self.aliases)

    def is_a(self, types: Iterable[str]) -> bool:
        """Whether the class, or one that it derives from, is among `types`."""
        return not {self.type_name, *self.types}.isdisjoint(types)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What matching knows of the algorithm.

    Attributes:
        name: What messages call it.
        default_types: The classes that `'default'` stands for.
        supported_types: The classes that it prunes, or empty for any that has a weight.
        channels: Whether it prunes whole output channels.
        purpose: What it does with modules: prune them, or quantise them.
    """

    name: str
    default_types: tuple[str, ...]
    supported_types: tuple[str, ...] = ()
    channels: bool = False
    purpose: Purpose = PRUNING

    def takes(self, module: ModuleInfo, entry: Entry) -> bool:
        """Whether it can do to a module what an entry asks for."""
        return self.prunes(module)

    def prunes(self, module: ModuleInfo) -> bool:
        """Whether it can prune a module."""
        if not module.has_weight or (module.whole_channels and not self.channels):
            return False
        return not self.supported_types or module.is_a(self.supported_types)

    def rule(self, refused: Iterable[ModuleInfo]) -> str:
        """What it prunes, and so not these, as the end of a message."""
        its = ", ".join(self.supported_types) or "modules with a weight"
        does = f"{self.name} {self.purpose.verb}s {its}."
        return next((f"{does} {m.name!r} {m.lacks}" for m in refused if m.lacks), does)


def match(
    entries: Sequence[Entry], modules: Sequence[ModuleInfo], algorithm: Algorithm
) -> dict[str, dict[str, Any]]:
    """Return `{module name: settings}` for what is to be pruned, in the model's order.

    Later entries win. The settings hold the entry's own keys, `op_names`, `op_types` and
    `entry`, the index of the entry that decided: modules of one entry form one group.

    A type is a filter: an entry may name types that the model does not have, as long as it
    matches something. A name is a reference, and has to be there.

    Raises:
        ConfigError: When an entry or a name matches nothing, or nothing is left to prune.
    """
    decided: dict[str, Entry | None] = {}
    catalogue = _Catalogue(modules, algorithm)
    for entry in entries:
        for module in _selected(entry, catalogue, algorithm):
            decided[module.name] = None if entry.exclude else entry
    settings = {
        module.name: _settings(decision, module)
        for module in modules
        if (decision := decided.get(module.name)) is not None
    }
    if not settings:
        raise ConfigError(
            "config_list excludes everything that it selects; nothing is left to "
            f"{algorithm.purpose.verb}."
        )
    return settings


def _settings(entry: Entry, module: ModuleInfo) -> dict[str, Any]:
    settings = dict(entry.settings)
    amount = next((settings[k] for k in _AMOUNTS if k in settings), None)
    if amount is not None:
        # The spelling that was used says whether the ratio is per module or over the entry;
        # whoever only wants the number finds it under each of the usual names.
        settings["per_layer"] = "sparsity_per_layer" in settings
        for key in ("sparsity", "sparsity_per_layer", "total_sparsity"):
            settings[key] = float(amount)
    return settings | {
        "op_names": [module.name],
        "op_types": [module.type_name],
        "entry": entry.index,
    }


_AMOUNTS = ("sparsity", "sparsity_per_layer", "total_sparsity", "final_sparsity")


class _Catalogue:
    """The modules of a model, found by type and by name without a search for each entry."""

    def __init__(self, modules: Sequence[ModuleInfo], algorithm: Algorithm) -> None:
        self.modules = {module.name: module for module in modules}
        self._algorithm = algorithm
        self._place = {module.name: at for at, module in enumerate(modules)}
        self._first = {name: module.name for module in modules for name in module.names}
        self._of_type: dict[str, list[ModuleInfo]] = defaultdict(list)
        for module in modules:
            self._of_type[module.type_name].append(module)
        self.chosen_by_types: dict[tuple[tuple[str, ...], bool], set[str]] = {}
        self._wrapped: dict[str, str | None] | None = None

    def in_order(self, names: Iterable[str]) -> list[ModuleInfo]:
        """Return modules in the order of the model."""
        return [self.modules[name] for name in sorted(names, key=self._place.__getitem__)]

    def of_type(self, wanted: str) -> list[ModuleInfo]:
        """Return the modules that an entry of `op_types` selects."""
        if wanted == DEFAULT and DEFAULT not in self._of_type:
            types = self._algorithm.default_types
            self._of_type[DEFAULT] = [m for m in self.modules.values() if m.is_a(types)]
        return self._of_type.get(wanted, [])

    def types(self) -> list[str]:
        """Return the class names that there are."""
        return sorted(self._of_type.keys() - {DEFAULT})

    def named(self, wanted: str) -> str | None:
        """Return the first name of the module that goes by a name, in whatever wrapping."""
        if wanted in self._first:
            return self._first[wanted]
        if self._wrapped is None:
            self._wrapped = {}
            for name, first in self._first.items():
                known = self._wrapped.setdefault(without_wrappers(name), first)
                if known != first:
                    self._wrapped[without_wrappers(name)] = None  # it could be either
        return self._wrapped.get(without_wrappers(wanted))

    def containing(self, part: str) -> set[str]:
        """Return the first names of the modules with a name that contains a part."""
        return {first for name, first in self._first.items() if part in name}

    def names(self) -> list[str]:
        """Return every name that there is."""
        return list(self._first)


def _selected(entry: Entry, modules: _Catalogue, algorithm: Algorithm) -> list[ModuleInfo]:
    of_type = _of_types(entry, modules, algorithm)
    named = _named(entry, modules)
    either = [names for names in (of_type, named) if names is not None]
    chosen = modules.in_order(set.intersection(*either) if either else modules.modules)
    if not chosen:
        raise ConfigError(
            f"{entry.where}: no module has one of the types {list(entry.op_types or ())} and one "
            "of the names given; op_types and the names must both hold."
        )
    if entry.exclude:
        return chosen
    fitting = [module for module in chosen if algorithm.takes(module, entry)]
    exact, fit = set(entry.op_names), {module.name for module in fitting}
    for module in chosen:
        if module.name not in fit and not exact.isdisjoint(module.names):
            raise ConfigError(
                f"{entry.where}: 'op_names' selects {module.name!r}, a {module.type_name}; "
                f"{algorithm.rule([module])}"
            )
    if not fitting:
        raise ConfigError(
            f"{entry.where} selects only {', '.join(sorted({m.type_name for m in chosen}))}; "
            f"{algorithm.rule(chosen)}"
        )
    return fitting


def _of_types(entry: Entry, modules: _Catalogue, algorithm: Algorithm) -> set[str] | None:
    if entry.op_types is None:
        return None
    if (known := modules.chosen_by_types.get((entry.op_types, entry.exclude))) is not None:
        return known
    selected: set[str] = set()
    for wanted in entry.op_types:
        found = modules.of_type(wanted)
        fits = any(algorithm.takes(module, entry) for module in found)
        if found and not entry.exclude and wanted != DEFAULT and not fits:
            raise ConfigError(
                f"{entry.where}: 'op_types' names {wanted!r}; {algorithm.rule(found)}"
            )
        selected.update(module.name for module in found)
    if not selected:
        raise ConfigError(_no_such_types(entry, modules, algorithm))
    modules.chosen_by_types[entry.op_types, entry.exclude] = selected
    return selected


def _no_such_types(entry: Entry, modules: _Catalogue, algorithm: Algorithm) -> str:
    """The message for types of which the model has none; of several, some may well be absent."""
    wanted = entry.op_types or ()
    there = modules.types()
    meant = (
        f" ({algorithm.name} means {', '.join(algorithm.default_types)})"
        if DEFAULT in wanted
        else ""
    )
    hint = next(filter(None, (did_you_mean(each, there) for each in wanted)), "")
    return (
        f"{entry.where}: 'op_types' names {', '.join(map(repr, wanted))}{meant}, and the model has "
        f"no such module.{hint} It has {', '.join(there)}."
    )


def _named(entry: Entry, modules: _Catalogue) -> set[str] | None:
    if not entry.op_names and not entry.op_partial_names:
        return None
    selected: set[str] = set()
    for wanted in entry.op_names:
        name = modules.named(wanted)
        if name is None:
            raise ConfigError(
                f"{entry.where}: 'op_names' has {wanted!r}, and the model has no module of that "
                f"name.{nearest(wanted, modules.names())}"
            )
        selected.add(name)
    for part in entry.op_partial_names:
        found = modules.containing(part) or modules.containing(without_wrappers(part))
        if not found:
            raise ConfigError(
                f"{entry.where}: 'op_partial_names' has {part!r}, and no module's name contains "
                f"it.{nearest(part, modules.names())}"
            )
        selected |= found
    return selected

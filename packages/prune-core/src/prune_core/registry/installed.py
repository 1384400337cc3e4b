"""Which installed distributions carry plugins.

`importlib.metadata` answers the same question, but importing it costs more than all the rest of
discovery, and one malformed `entry_points.txt` anywhere makes it fail for everybody. So the
`*.dist-info` folders on `sys.path` are read here; it is asked only where distributions are kept
in something else than folders.
"""

# pathlib would be another 5 ms, and nothing else here needs it.
# ruff: noqa: PTH113, PTH118, PTH122, PTH123, PTH208

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from prune_core.errors import PluginError
from prune_core.registry.metadata import Metadata, canonical

__all__ = ["GROUP", "InstalledPlugin", "installed_plugins"]

GROUP = "prune_core.plugins"

Read = Callable[[str], str | None]
"""Returns the text of one of a distribution's metadata files, or None when it has none such."""


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """One entry point of the group, not imported yet."""

    name: str
    value: str
    metadata: Metadata

    def load(self) -> Any:
        """Import the hooks module, or the object in it, that the entry point names."""
        module_name, _, attributes = self.value.partition(":")
        found: ModuleType | Any = import_module(module_name.strip())
        for attribute in filter(None, attributes.strip().split(".")):
            if not hasattr(found, attribute):
                raise PluginError(
                    f"its entry point {self.name!r} is {self.value!r}, and "
                    f"{module_name.strip()!r} has no attribute {attribute!r}."
                )
            found = getattr(found, attribute)
        return found


def installed_plugins() -> list[InstalledPlugin]:
    """Return every installed plugin, in the order of the distributions' names."""
    found = [plugin for read in _distributions() for plugin in _plugins_of(read)]
    return sorted(found, key=lambda plugin: (canonical(plugin.metadata.name), plugin.name))


def _plugins_of(read: Read) -> Iterator[InstalledPlugin]:
    entry_points = read("entry_points.txt")
    if entry_points is None or f"[{GROUP}]" not in entry_points:
        return
    metadata = Metadata.parse(read("METADATA") or read("PKG-INFO") or "")
    group = ""
    for line in map(str.strip, entry_points.splitlines()):
        name, equals, value = line.partition("=")
        if line.startswith("["):
            group = line.strip("[]")
        elif group == GROUP and equals and not line.startswith("#"):
            yield InstalledPlugin(name.strip(), value.partition("[")[0].strip(), metadata)


def _distributions() -> Iterator[Read]:
    """Yield a reader for each distribution; the first on `sys.path` hides others of its name."""
    if not _only_folders():
        import importlib.metadata

        seen = set()
        for distribution in importlib.metadata.distributions():
            name = canonical(distribution.metadata["Name"] or "")
            if name not in seen:
                seen.add(name)
                yield distribution.read_text
        return
    folders: dict[str, str] = {}
    for entry in dict.fromkeys(sys.path):
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix in (".dist-info", ".egg-info"):
                key = canonical(stem.partition("-")[0])
                folders.setdefault(key, os.path.join(entry, name))
    for folder in folders.values():
        yield _reader(folder)


def _only_folders() -> bool:
    """Tell whether folders are the only place where distributions can be."""
    finders = [f for f in sys.meta_path if getattr(f, "find_distributions", None) is not None]
    return finders == [PathFinder] and not any(os.path.isfile(entry) for entry in sys.path)


def _reader(folder: str) -> Read:
    def read(name: str) -> str | None:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                return file.read()
        except (OSError, UnicodeError):
            return None

    return read

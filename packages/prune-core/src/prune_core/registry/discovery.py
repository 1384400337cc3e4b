"""From installed distributions to loaded plugins.

Every plugin is loaded, checked and asked for its names on its own. Whatever goes wrong with one
is recorded there, said once in a warning, and costs the others nothing.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pluggy

from prune_core import hookspecs
from prune_core.__about__ import __version__
from prune_core.errors import PluginError, PluginWarning, did_you_mean
from prune_core.reference import Reference
from prune_core.registry.installed import InstalledPlugin, installed_plugins
from prune_core.registry.metadata import Metadata, canonical

__all__ = ["DISABLED_VARIABLE", "KINDS", "Plugin", "Plugins", "discover"]

CORE = "prune-core"
DISABLED_VARIABLE = "PRUNE_DISABLED_PLUGINS"
PART_KINDS = ("collector", "metric", "allocator", "reconstructor")
DOTTED_KINDS = ("rule", "resizer")
PLAIN_KINDS = (
    "pruner",
    "quantizer",
    "schedule",
    "cost",
    "exporter",
    "engine",
    "report_section",
)
KINDS = (*PLAIN_KINDS[:3], *PART_KINDS, *DOTTED_KINDS, *PLAIN_KINDS[3:])
HEAVY_IMPORTS = ("torch", "tensorflow", "keras", "jax")
NAME = re.compile(r"[a-z][a-z0-9_]*")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Plugin:
    """One installed plugin and what became of it.

    Attributes:
        name: Name of the entry point.
        distribution: Name of the distribution that installed it.
        version: Version of that distribution.
        provides: `{kind: {name: Reference}}`, empty when the plugin was left out.
        error: Why it was left out, or None.
        disabled: Whether the user switched it off.
        heavy: Frameworks that its hooks module imports, which slows down every listing.
    """

    name: str
    distribution: str
    version: str
    provides: Mapping[str, Mapping[str, Reference]] = field(default_factory=dict)
    error: str | None = None
    disabled: bool = False
    heavy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plugins:
    """All plugins, and the manager that calls the hooks of the sound ones."""

    plugins: tuple[Plugin, ...]
    manager: pluggy.PluginManager


def discover(extra: Mapping[str, object] | None = None) -> Plugins:
    """Load every installed plugin.

    Args:
        extra: Plugins that are not installed: `{distribution name: module or object}`.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    disabled = _disabled_names()
    plugins = [
        _admit(manager, plugin.name, plugin.metadata, plugin, disabled)
        for plugin in installed_plugins()
    ]
    plugins += [
        _admit(manager, name, Metadata(name), module, disabled)
        for name, module in (extra or {}).items()
    ]
    _warn_of_unknown_disabled(disabled, plugins)
    for plugin in plugins:
        if plugin.error is not None:
            warnings.warn(
                f"Plugin {plugin.distribution} {plugin.version} is left out: {plugin.error}",
                PluginWarning,
                stacklevel=2,
            )
    return Plugins(tuple(plugins), manager)


def _disabled_names() -> set[str]:
    names = os.environ.get(DISABLED_VARIABLE, "").split(",")
    return {canonical(name.strip()) for name in names if name.strip()}


def _warn_of_unknown_disabled(disabled: set[str], plugins: list[Plugin]) -> None:
    installed = [canonical(plugin.distribution) for plugin in plugins]
    for name in sorted(disabled.difference(installed)):
        hint = did_you_mean(name, installed)
        warnings.warn(
            f"{DISABLED_VARIABLE} names {name!r}, which is not an installed plugin.{hint}",
            PluginWarning,
            stacklevel=3,
        )


def _admit(
    manager: pluggy.PluginManager,
    name: str,
    metadata: Metadata,
    source: InstalledPlugin | object,
    disabled: set[str],
) -> Plugin:
    """Load, check and question one plugin; never raise because of it."""
    identity = Plugin(name, metadata.name, metadata.version)
    if canonical(metadata.name) in disabled:
        return replace(identity, disabled=True)
    key = f"{metadata.name}:{name}"
    already = {module for module in HEAVY_IMPORTS if module in sys.modules}
    try:
        unmet = metadata.unmet(CORE, __version__)
        if unmet is not None:
            raise PluginError(
                f"it requires {unmet}, and this is {CORE} {__version__}. "
                f"Upgrade one of the two, for example `pip install -U {metadata.name} {CORE}`."
            )
        module = source.load() if isinstance(source, InstalledPlugin) else source
        _check_hook_names(module)
        manager.register(module, name=key)
        provides = _ask(module)
    except (Exception, SystemExit) as error:
        # Whatever a stranger's module raises is that plugin's fault alone.
        if manager.has_plugin(key):
            manager.unregister(name=key)
        return replace(identity, error=_cause(error, source))
    heavy = tuple(m for m in HEAVY_IMPORTS if m in sys.modules and m not in already)
    return replace(identity, provides=provides, heavy=heavy)


def _cause(error: BaseException, source: InstalledPlugin | object) -> str:
    if isinstance(error, PluginError):
        return str(error)
    if isinstance(error, pluggy.PluginValidationError):
        # Its first lines name the plugin again; the last says what is wrong.
        return " ".join(str(error).split())
    where = f"loading {source.value!r} " if isinstance(source, InstalledPlugin) else ""
    return f"{where}raised {type(error).__name__}: {error}"


@cache
def _specified() -> dict[str, Callable[..., Any]]:
    marker = f"{hookspecs.PROJECT}_spec"
    return {
        name: function
        for name, function in vars(hookspecs).items()
        if inspect.isfunction(function) and hasattr(function, marker)
    }


def _check_hook_names(module: object) -> None:
    """Refuse what pluggy would ignore in silence: a misspelt hook, or one without `@hookimpl`."""
    specified = _specified()
    marker = f"{hookspecs.PROJECT}_impl"
    for name in dir(module):
        function = getattr(module, name, None)
        if not inspect.isroutine(function):
            continue
        if hasattr(function, marker):
            if name not in specified:
                raise PluginError(
                    f"it implements {name!r}, which is not a hook of {CORE}."
                    f"{did_you_mean(name, specified)}"
                )
        elif name in specified:
            raise PluginError(f"its {name!r} lacks the decorator @prune_core.hookimpl.")


def _ask(module: object) -> dict[str, dict[str, Reference]]:
    """Call the registration hooks of one plugin and check what they return."""
    provides: dict[str, dict[str, Reference]] = {}
    for kind in (*PLAIN_KINDS, *DOTTED_KINDS):
        hook = f"prune_register_{kind}s"
        function = getattr(module, hook, None)
        if function is not None:
            provides[kind] = _references(hook, function(), dotted=kind in DOTTED_KINDS)
    function = getattr(module, "prune_register_parts", None)
    if function is not None:
        parts = _mapping("prune_register_parts", function())
        for kind, references in parts.items():
            if kind not in PART_KINDS:
                raise PluginError(
                    f"its prune_register_parts returns the kind {kind!r}; "
                    f"the kinds are {', '.join(PART_KINDS)}.{did_you_mean(kind, PART_KINDS)}"
                )
            provides[kind] = _references("prune_register_parts", references)
    return {kind: names for kind, names in provides.items() if names}


def _mapping(hook: str, returned: object) -> Mapping[Any, Any]:
    if not isinstance(returned, Mapping):
        raise PluginError(f"its {hook} returned {returned!r} where a mapping is expected.")
    return returned


def _references(hook: str, returned: object, *, dotted: bool = False) -> dict[str, Reference]:
    references = dict(_mapping(hook, returned))
    for name, reference in references.items():
        if not (isinstance(name, str) and (DOTTED if dotted else NAME).fullmatch(name)):
            form = "lower-case letters, digits and underscores, and starts with a letter"
            if dotted:
                form = "a dotted path, such as 'acme.swirl'"
            raise PluginError(f"its {hook} registers the name {name!r}; a name is {form}.")
        if not isinstance(reference, Reference):
            raise PluginError(
                f"its {hook} registers {name!r} as {reference!r} where a prune_core.Reference "
                "is expected, such as Reference('package.module:Class')."
            )
    return references

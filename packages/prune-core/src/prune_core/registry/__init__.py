"""The plugins that are installed, and what can be had from them by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pluggy

from prune_core.errors import (
    MissingDependencyError,
    PluginWarning,
    PruneError,
    UnknownNameError,
)
from prune_core.reference import Reference
from prune_core.registry.catalogue import Entry, find, listed
from prune_core.registry.discovery import Plugin, Plugins, discover

__all__ = [
    "Entry",
    "Plugin",
    "Reference",
    "entries",
    "framework_of",
    "get_engine",
    "get_entry",
    "get_extension",
    "get_part",
    "get_pruner",
    "get_quantizer",
    "get_schedule",
    "manager",
    "names",
    "plugins",
    "refresh",
    "registered",
]

_uninstalled: dict[str, object] = {}


@cache
def _discovered() -> Plugins:
    return discover(_uninstalled)


def plugins() -> tuple[Plugin, ...]:
    """Return every installed plugin, also those left out, with the reason."""
    return _discovered().plugins


def manager() -> pluggy.PluginManager:
    """Return the pluggy manager whose hooks reach every sound plugin."""
    return _discovered().manager


def refresh() -> None:
    """Forget what was discovered; the next look-up searches again."""
    _discovered.cache_clear()
    names.cache_clear()
    get_extension.cache_clear()


@cache
def names(kind: str) -> frozenset[str]:
    """Return the names of one kind that plugins registered.

    Args:
        kind: The kind, such as `"pruner"`.
    """
    return frozenset(entry.name for entry in entries(kind))


@cache
def get_extension(kind: str, name: str) -> Any | None:
    """Return what a plugin brings to the engine under a name.

    What cannot be had, because its import fails or two plugins claim it, is said once in a
    warning, and the engine goes on without it.

    Args:
        kind: The kind, such as `"rule"` or `"resizer"`.
        name: What it is registered under.
    """
    try:
        return get_entry(kind, name).load()
    except PruneError as error:
        warnings.warn(f"{error} Speedup goes on without it.", PluginWarning, stacklevel=3)
        return None


def entries(kind: str | None = None) -> list[Entry]:
    """Return every registered name, of one kind or of all, without importing what it names.

    Args:
        kind: The kind, such as `"pruner"`; by default all kinds.
    """
    return list(listed(plugins(), kind))


def get_entry(kind: str | None, name: str, framework: str | None = None) -> Entry:
    """Return what is registered under a name, of one kind or of any, without importing it.

    Args:
        kind: The kind, such as `"pruner"`, or None for any.
        name: The name, bare or as `distribution:name`.
        framework: `"torch"` or `"keras"`, where both have the name.
    """
    return find(plugins(), kind, name, framework)


def framework_of(model: Any) -> str:
    """Return the framework that a model, or a class of models, is of, or an empty string.

    A framework is what an engine is registered for. No framework is imported.

    Args:
        model: The model.

    Example:
        >>> framework_of("no model")
        ''
    """
    kind = model if isinstance(model, type) else type(model)
    # The first one counts: on its backend torch, Keras' own classes derive from torch's.
    packages = [base.__module__.partition(".")[0] for base in kind.__mro__]
    known = {"torch", "keras"} | names("engine")
    return next((package for package in packages if package in known), "")


def get_engine(framework: str = "torch", *, wanted: str = "") -> Any:
    """Return what analyses models of a framework and makes them smaller.

    Args:
        framework: `"torch"`, `"keras"`, or what a plugin registered.
        wanted: What it is needed for, for the message where there is none.

    Returns:
        What `prune_core.engine.Engine` describes.
    """
    try:
        return get_entry("engine", framework).load()
    except UnknownNameError as error:
        needs = f"{wanted} needs an engine for {framework} models. " if wanted else ""
        raise MissingDependencyError(f"{needs}{error}") from None


def get_pruner(name: str, *, framework: str | None = None) -> Any:
    """Return a pruning algorithm by its name, such as `"l1"` or `"prune-filter:l1"`.

    Args:
        name: Bare, or qualified by the distribution that registers it.
        framework: `"torch"` or `"keras"`, where the name exists for both; torch unless said.
    """
    return get_entry("pruner", name, framework).load()


def get_quantizer(name: str) -> Any:
    """Return a quantisation algorithm by its name, such as `"qat"` or `"prune-quant:qat"`.

    Args:
        name: The name, bare or as `distribution:name`.
    """
    return get_entry("quantizer", name).load()


def get_schedule(name: str) -> Any:
    """Return a sparsity schedule, a function of `(progress, initial, final)`, by its name.

    Args:
        name: The name, bare or as `distribution:name`.
    """
    return get_entry("schedule", name).load()


def get_part(kind: str, name: str, *, framework: str | None = None) -> Any:
    """Return a collector, metric or allocator by its name.

    Args:
        kind: `"collector"`, `"metric"`, `"allocator"` or `"reconstructor"`.
        name: The name, bare or as `distribution:name`.
        framework: `"torch"` or `"keras"`, where both have the name.
    """
    return get_entry(kind, name, framework).load()


@contextmanager
def registered(plugin: object, name: str = "in-process-plugin") -> Iterator[None]:
    """Make a module or object act as an installed plugin, as notebooks and tests need it.

    Args:
        plugin: Anything with hook implementations.
        name: The distribution name that it goes by.
    """
    _uninstalled[name] = plugin
    refresh()
    try:
        yield
    finally:
        del _uninstalled[name]
        refresh()

"""Modules of the core that are doors: their names are those of a package that may not be there.

Scripts find things where they always were, the core has none of the code, and whoever lacks the
package is told what to install. Such a module holds one line:

    __getattr__, __dir__ = door("prune_recover", "prune-recover")
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from prune_core.errors import MissingDependencyError

__all__ = ["brought", "door", "engine_door"]

Door = tuple[Callable[[str], Any], Callable[[], list[str]]]


def brought(name: str, module: str, distribution: str, wanted: str) -> Any:
    """Return something of a module that another distribution brings.

    Args:
        name: What is wanted of it.
        module: The module.
        distribution: What installs it.
        wanted: How the message calls it.

    Raises:
        MissingDependencyError: When the distribution, or torch, is not installed.
    """
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0], "torch"):
            raise
        raise MissingDependencyError(
            f"{wanted} comes with {distribution}: `pip install {distribution}`."
        ) from None


def door(module: str, distribution: str, wanted: str = "") -> Door:
    """Return `__getattr__` and `__dir__` of a module whose names are those of another.

    Args:
        module: The module behind the door.
        distribution: What installs it.
        wanted: How a message calls it; `prune_core` and the name unless given.
    """
    return _door(
        lambda name: brought(name, module, distribution, wanted or f"prune_core.{name}"),
        lambda: import_module(module),
    )


def engine_door() -> Door:
    """Return the same for names of the engine for torch models, which any plugin may bring."""
    from prune_core.registry import get_engine

    return _door(
        lambda name: getattr(get_engine(wanted=f"prune_core.{name}"), name),
        lambda: get_engine(),
    )


def _door(get: Callable[[str], Any], behind: Callable[[], Any]) -> Door:
    def public(name: str) -> Any:
        if name.startswith(("__", "pytest")):  # what tools ask every module for
            raise AttributeError(f"This module has no attribute {name!r}.")
        return get(name)

    def names() -> list[str]:
        try:
            return [name for name in dir(behind()) if not name.startswith("_")]
        except ImportError:  # tools that only look around are not to fail
            return []

    return public, names

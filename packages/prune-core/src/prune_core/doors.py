"""Modules of the core that are doors: their names are those of a package that may not be there.

Scripts find things where they always were, the core has none of the code, and whoever lacks the
package is told what to install.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from prune_core.errors import MissingDependencyError

__all__ = ["behind", "door", "engine"]


def door(open_: Callable[[str], Any]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a module that is a door.

    Args:
        open_: Returns what is behind it; takes the name that is asked for, for the message.
    """

    def get(name: str) -> Any:
        if name.startswith(("__", "pytest")):  # what tools ask every module for
            raise AttributeError(f"This module has no attribute {name!r}.")
        return getattr(open_(name), name)

    def names() -> list[str]:
        try:
            return [name for name in dir(open_("dir()")) if not name.startswith("_")]
        except MissingDependencyError:  # tools that only look around are not to fail
            return []

    return get, names


def behind(module: str, distribution: str, named: str = "") -> Callable[[str], Any]:
    """Return what opens a door to a module.

    Args:
        module: The module behind it, such as `"prune_recover"`.
        distribution: What installs it.
        named: What a message says is not there; `prune_core` and the name unless given.
    """

    def open_(name: str) -> Any:
        try:
            found = import_module(module)
            getattr(found, name, None)  # may be imported by this, and need torch
        except ModuleNotFoundError as error:
            if error.name not in (module.partition(".")[0], "torch"):
                raise
            raise MissingDependencyError(
                f"{named or f'prune_core.{name}'} comes with {distribution}: "
                f"`pip install {distribution}`."
            ) from None
        return found

    return open_


def engine(name: str) -> Any:
    """Return the engine for torch models, which is a plugin like any other.

    Args:
        name: What is wanted of it, for the message where there is none.
    """
    from prune_core.registry import get_engine

    return get_engine("torch", wanted=f"prune_core.{name}")

"""A hook that belongs to one module, and to none of its copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["Watcher"]


class Watcher:
    """A hook on a module that a copy of the module does not have.

    A training may copy its model for averaged weights, or pickle it for a checkpoint. What the
    copy does is nobody's data, and no function stands in the way of pickling.
    """

    def __init__(self, hook: Callable[..., Any] | None, module: nn.Module | None) -> None:
        self._hook, self._module = hook, module

    def __call__(self, module: nn.Module, *args: Any) -> None:
        """Look at the module that is watched, and at no other."""
        if self._hook is not None and module is self._module:
            self._hook(module, *args)

    def __reduce__(self) -> tuple[Any, ...]:
        return Watcher, (None, None)

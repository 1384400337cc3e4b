"""Telling listeners what happened.

A listener is a plugin's convenience (a progress bar, an experiment tracker); the run is the
user's. So a listener that fails is reported and the run goes on.
"""

import warnings
from typing import Any

from prune_core.errors import PluginWarning
from prune_core.registry import manager

__all__ = ["emit"]


def emit(event: str, **details: Any) -> None:
    """Call every listener of an event hook, such as `prune_masks_made`."""
    caller = getattr(manager().hook, event)
    for listener in reversed(caller.get_hookimpls()):
        try:
            listener.function(*(details[name] for name in listener.argnames))
        except Exception as error:
            warnings.warn(
                f"Plugin {listener.plugin_name} failed in {event}: "
                f"{type(error).__name__}: {error}. The run goes on without it.",
                PluginWarning,
                stacklevel=3,
            )

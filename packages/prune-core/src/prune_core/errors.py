"""Every error a user can cause.

A message names the value, the rule it broke and the nearest thing that would be right, so each
class here is only a name to catch; the sentence is written where the mistake is found.
"""

import sys
import warnings
from collections.abc import Iterable

__all__ = [
    "AmbiguousNameError",
    "ConfigError",
    "MaskError",
    "MaskFileError",
    "MissingDependencyError",
    "PluginError",
    "PluginWarning",
    "PruneError",
    "PruneWarning",
    "SpeedupError",
    "UnknownNameError",
    "did_you_mean",
    "warn",
]


class PruneError(Exception):
    """The base of every error that prune raises on purpose."""


class ConfigError(PruneError, ValueError):
    """A `config_list`, a recipe or an argument of a pruner says something that cannot be done."""


class MaskError(PruneError, ValueError):
    """Masks do not fit the model they are meant for."""


class MaskFileError(MaskError):
    """A mask file is damaged, of another kind, or made for another model."""


class SpeedupError(PruneError, RuntimeError):
    """A model could not be made smaller without changing what it computes; it is left as it was."""


class PluginError(PruneError):
    """A plugin is broken, or asked for something that the registry cannot do."""


class UnknownNameError(PluginError, LookupError):
    """No installed plugin registers this name."""


class AmbiguousNameError(PluginError, LookupError):
    """Several installed plugins register this bare name; a qualified one is needed."""


class MissingDependencyError(PruneError, ImportError):
    """An optional dependency is needed for what was asked."""


class PruneWarning(UserWarning):
    """Something was done, but perhaps not what was meant."""


class PluginWarning(PruneWarning):
    """A plugin was left out, and why."""


def warn(message: str) -> None:
    """Warn of something that was done, at the line of the user's own that asked for it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, PruneWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    """Whether a module is of this project, or stands between two of its functions."""
    return module == "contextlib" or module.partition(".")[0].startswith("prune_")


def did_you_mean(name: object, known: Iterable[str], *, limit: int = 3) -> str:
    """Return `" Did you mean 'x' or 'y'?"`, or nothing when no known name is close.

    >>> did_you_mean("conv", ["conv1", "fc"])
    " Did you mean 'conv1'?"
    >>> did_you_mean("L1", ["l1", "l2"])
    " Did you mean 'l1'?"
    """
    from difflib import get_close_matches  # slow to import, and only a mistake needs it

    known = list(known)
    close = [other for other in known if other.casefold() == str(name).casefold() != ""]
    close = close or get_close_matches(str(name), known, n=limit, cutoff=0.6)
    if not close:
        return ""
    *head, last = [repr(match) for match in close]
    return f" Did you mean {', '.join(head) + ' or ' if head else ''}{last}?"

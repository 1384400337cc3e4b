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
    "OptionError",
    "PluginError",
    "PluginWarning",
    "PruneError",
    "PruneWarning",
    "SpeedupError",
    "UnknownNameError",
    "did_you_mean",
    "nearest",
    "shown",
    "warn",
]


class PruneError(Exception):
    """The base of every error that prune raises on purpose."""


class ConfigError(PruneError, ValueError):
    """A `config_list`, a recipe or an argument of a pruner says something that cannot be done."""


class OptionError(ConfigError, TypeError):
    """A pruner is called with an argument that it does not take, or without one that it needs."""


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
    """Warn of something that was done, at the line of the user's own that asked for it.

    Args:
        message: What to say.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, PruneWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    """Whether a module is of this project, or stands between two of its functions."""
    return module == "contextlib" or module.partition(".")[0].startswith("prune_")


def did_you_mean(name: object, known: Iterable[str], *, limit: int = 3) -> str:
    """Return `" Did you mean 'x' or 'y'?"`, or nothing when no known name is close.

    The name of a layer is also close when it ends alike, wherever the layer stands.

    Args:
        name: The name that is not known.
        known: The names that are.
        limit: How many to suggest at most.

    >>> did_you_mean("conv", ["conv1", "fc"])
    " Did you mean 'conv1'?"
    >>> did_you_mean("L1", ["l1", "l2"])
    " Did you mean 'l1'?"
    >>> did_you_mean("head", ["model.layers.0.mlp", "model.lm_head"])
    " Did you mean 'model.lm_head'?"
    >>> did_you_mean("l1_norm", ["l1", "level"])
    " Did you mean 'l1'?"
    """
    from difflib import get_close_matches  # slow to import, and only a mistake needs it

    wanted, known = str(name), list(known)
    close = [other for other in known if other.casefold() == wanted.casefold() != ""]
    close = close or get_close_matches(wanted, known, n=limit, cutoff=0.6)
    if not close:
        ends: dict[str, list[str]] = {}
        for other in known:
            ends.setdefault(other.rpartition(".")[2], []).append(other)
        alike = get_close_matches(wanted.rpartition(".")[2], ends, n=limit, cutoff=0.6)
        close = [other for end in alike for other in ends[end]][:limit]
    if not close and len(wanted) > 2:
        close = [other for other in known if len(other) > 1 and _begins(wanted, other)][:limit]
    if not close:
        return ""
    *head, last = [repr(match) for match in close]
    return f" Did you mean {', '.join(head) + ' or ' if head else ''}{last}?"


def _begins(wanted: str, other: str) -> bool:
    one, two = sorted((wanted.casefold(), other.casefold()), key=len)
    return two.startswith(one)


def nearest(name: object, known: Iterable[str], *, limit: int = 8) -> str:
    """Return `did_you_mean`, or else what there is to choose from, the first and the last of it.

    Args:
        name: The name that is not known.
        known: The names that are.
        limit: How many to show at most.

    >>> nearest("head", ["conv1", "conv2", "fc"])
    ' There are conv1, conv2, fc.'
    >>> nearest("head", [f"conv{i}" for i in range(9)], limit=4)
    ' There are conv0, conv1, …, conv7, conv8.'
    """
    known = list(known)
    if (meant := did_you_mean(name, known)) or not known:
        return meant
    shown = known if len(known) <= limit else [*known[: limit // 2], "…", *known[-limit // 2 :]]
    return f" There are {', '.join(shown)}."


def shown(value: object, length: int = 80) -> str:
    """Return a value as a message shows it, however large it is, and even if it cannot be shown.

    Args:
        value: Anything.
        length: How many characters to show at most.

    >>> shown([1, [2, "three"]])
    "[1, [2, 'three']]"
    >>> shown("a" * 100, 9)
    "'aaaaa..."
    """
    from reprlib import Repr

    # Of a list that holds itself a thousand times over, only the beginning is looked at.
    brief = Repr()
    brief.maxlevel = 4
    brief.maxdict = brief.maxlist = brief.maxtuple = brief.maxset = brief.maxfrozenset = 16
    brief.maxstring = brief.maxlong = brief.maxother = 400
    try:
        text = brief.repr(value)
    except Exception:  # an integer of thousands of digits, or anything
        text = f"<{type(value).__name__} that cannot be printed>"
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3]}..."

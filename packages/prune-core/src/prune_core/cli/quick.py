"""`prune list` and `prune show` without Typer, whose start takes longer than they do.

Only what is called as it should be is answered here. Help, completion and mistakes are Typer's.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Mapping

from prune_core.errors import PruneWarning

__all__ = ["answered"]

_KIND = {"--kind": "kind", "-k": "kind"}
_FRAMEWORK = {"--framework": "framework", "-f": "framework"}


def answered(arguments: list[str]) -> bool:
    """Run a command if it is one of the two, and nothing about it is unusual."""
    if not arguments or "_PRUNE_COMPLETE" in os.environ:
        return False
    command, *others = arguments
    known = {"list": _KIND, "show": _KIND | _FRAMEWORK}.get(command)
    told = None if known is None else _read(others, known)
    if told is None:
        return False
    names, options = told
    as_json = options.pop("json", None) is not None
    if len(names) != (command == "show"):
        return False
    _load_plugins()
    if command == "list":
        from prune_core.cli.list import list_names

        list_names(**options, as_json=as_json)
    else:
        from prune_core.cli.show import show_name

        show_name(*names, **options, as_json=as_json)
    return True


def _read(
    arguments: Iterable[str], known: Mapping[str, str]
) -> tuple[list[str], dict[str, str]] | None:
    """Return the names and the options among arguments; nothing if there is anything else."""
    names: list[str] = []
    options: dict[str, str] = {}
    waiting = iter(arguments)
    for argument in waiting:
        option, equals, value = argument.partition("=")
        if argument == "--json":
            options["json"] = argument
        elif option in known and option.startswith("--") and equals:
            options[known[option]] = value
        elif argument in known and (given := next(waiting, None)) is not None:
            options[known[argument]] = given
        elif argument.startswith("-"):
            return None
        else:
            names.append(argument)
    return names, options


def _load_plugins() -> None:
    """Say first which plugins are left out."""
    from prune_core.registry import plugins

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PruneWarning)
        plugins()
    for warning in caught:
        print(f"Warning: {warning.message}", file=sys.stderr)

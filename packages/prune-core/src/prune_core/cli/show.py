"""`prune show`: how one algorithm is called, without importing it."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, Any

from prune_core.cli.list import as_dict
from prune_core.cli.output import console, grid, print_json
from prune_core.registry import Entry, get_entry

if TYPE_CHECKING:
    from prune_core.cli.describe import Description

__all__ = ["show_name"]


def show_name(
    name: str, kind: str | None = None, framework: str | None = None, *, as_json: bool = False
) -> None:
    """Print the signature, paper, config keys and example of one name."""
    from prune_core.cli.describe import describe  # `prune list` need not wait for it

    entry = get_entry(kind, name, framework)
    description = describe(entry.reference)
    if as_json:
        print_json(_as_dict(entry, description))
    else:
        _print(entry, description)


def _as_dict(entry: Entry, description: Description) -> dict[str, Any]:
    return {
        **as_dict(entry),
        "signature": description.signature,
        "config_keys": _config_keys(entry, description),
        "capabilities": description.capabilities if entry.kind == "pruner" else {},
        "documentation": description.documentation,
        "example": description.example,
    }


def _config_keys(entry: Entry, description: Description) -> dict[str, str]:
    """Return every key that an entry of the `config_list` may have, and what it means."""
    from prune_core.config import PRUNING, QUANTISING, keys_for

    purpose = {"pruner": PRUNING, "quantizer": QUANTISING}.get(entry.kind)
    if purpose is None:
        return {}
    keys = keys_for((), purpose)
    return {key.name: key.meaning for key in keys.values()} | description.config_keys


def _can(description: Description) -> dict[str, str]:
    """Return what an algorithm declares of itself, in words."""
    declared = description.capabilities
    scored = {"channels": "one for each output channel", "weights": "one for each weight"}
    needs = {"needs_data": "a calibrate function that runs the model", "needs_labels": "its loss"}
    return {
        "scores": scored.get(declared.get("granularity", ""), ""),
        "modes": ", ".join(declared.get("modes", ()) if declared.get("granularity") else ()),
        "needs": ", and ".join(said for name, said in needs.items() if declared.get(name)),
    }


def _print(entry: Entry, description: Description) -> None:
    from rich.text import Text

    reference, plugin = entry.reference, entry.plugin
    keys = _config_keys(entry, description)
    facts = {
        entry.kind: entry.name,
        "from": f"{plugin.distribution} {plugin.version}",
        "prunes": reference.prunes,
        "framework": reference.framework,
        **(_can(description) if entry.kind == "pruner" else {}),
        "object": reference.target,
        "paper": reference.paper,
        "call": description.signature,
        "config keys": "\n".join(f"{key}: {keys[key]}".rstrip(": ") for key in keys),
    }
    screen = console()
    screen.print(grid([Text(label, "dim"), Text(fact)] for label, fact in facts.items() if fact))
    prose = description.documentation or reference.summary
    for text in (prose, description.example and f"Example:\n{indent(description.example, '    ')}"):
        if text:
            screen.print()
            screen.print(Text(text))

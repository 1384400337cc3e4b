"""`prune list`: everything that can be had by name."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from prune_core.cli.output import console, print_json
from prune_core.registry import Entry, entries
from prune_core.registry.discovery import KINDS

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["as_dict", "list_names"]


def list_names(kind: str | None = None, *, as_json: bool = False) -> None:
    """Print the algorithms, schedules and parts of every installed plugin."""
    found = sorted(entries(kind), key=lambda entry: (KINDS.index(entry.kind), entry.name))
    if as_json:
        print_json([as_dict(entry) for entry in found])
        return
    screen = console()
    if not found:
        screen.print(f"No {kind or 'name'} is registered. `pip install prune-filter` brings some.")
    for its_kind, group in groupby(found, key=lambda entry: entry.kind):
        screen.print(_table(its_kind, [*group]))


def as_dict(entry: Entry) -> dict[str, str]:
    """Return what the registry says of a name, for JSON."""
    reference = entry.reference
    return {
        "kind": entry.kind,
        "name": entry.name,
        "qualified_name": entry.qualified_name,
        "distribution": entry.plugin.distribution,
        "version": entry.plugin.version,
        "prunes": reference.prunes,
        "summary": reference.summary,
        "paper": reference.paper,
        "framework": reference.framework,
        "target": reference.target,
    }


def _table(kind: str, found: list[Entry]) -> Table:
    from rich.table import Table
    from rich.text import Text

    prunes = any(entry.reference.prunes for entry in found)
    frameworks = len({entry.reference.framework for entry in found}) > 1
    table = Table(title=f"{kind}s", title_style="bold", title_justify="left", box=None)
    table.add_column("name", style="cyan", no_wrap=True)
    if prunes:
        table.add_column("prunes")
    if frameworks:
        table.add_column("framework", no_wrap=True)
    table.add_column("distribution", no_wrap=True)
    table.add_column("version", no_wrap=True)
    table.add_column("what it does", overflow="fold")
    for entry in found:
        cells = [entry.name]
        cells += [entry.reference.prunes] if prunes else []
        cells += [entry.reference.framework] if frameworks else []
        cells += [entry.plugin.distribution, entry.plugin.version, entry.reference.summary]
        # As text: an extra in brackets, which a summary may name, would be a style to rich.
        table.add_row(*map(Text, cells))
    return table

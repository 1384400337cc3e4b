"""Printing what commands found, for people and for programs.

Rich is imported where something is printed with it: `--json` does not wait for it. Nor does
anything wait for Typer that is not called by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Annotated

    import typer
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    AsJson = Annotated[bool, typer.Option("--json")]

__all__ = ["AsJson", "console", "grid", "print_json"]

PIPED_WIDTH = 160


def __getattr__(name: str) -> Any:
    if name != "AsJson":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from typing import Annotated

    import typer

    return Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def console() -> Console:
    """Return a console on standard output; in a pipe, lines are not cut to a screen's width."""
    from rich.console import Console

    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def grid(rows: Iterable[list[str | Text]]) -> Table:
    """Align columns of text without drawing anything around them."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    return table


def print_json(content: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(content, indent=2))

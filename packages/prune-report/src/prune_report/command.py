"""`prune report`: write the page of a report anew, and print the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    path: Annotated[Path, typer.Argument(help="A report.json, or the folder that holds one.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write; by default, where report.json is."),
    ] = None,
    show_only: Annotated[
        bool, typer.Option("--show", help="Print the report and write nothing.")
    ] = False,
) -> None:
    """Print a report, and write report.html and model_card.md of it anew."""
    from prune_report.terminal import show
    from prune_report.writing import read, write

    document = read(path)
    show(document)
    if not show_only:
        folder = output or (path if path.is_dir() else path.parent)
        written = write(document, folder)
        typer.echo(f"\n{', '.join(map(str, written))}")

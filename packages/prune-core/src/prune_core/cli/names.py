"""`prune list` and `prune show` as Typer takes them: their options, with help and completion."""

from typing import Annotated

import typer

from prune_core.cli.completion import beginning, registered_names
from prune_core.cli.list import list_names
from prune_core.cli.output import AsJson
from prune_core.cli.show import show_name
from prune_core.registry.discovery import KINDS

__all__ = ["list_", "show"]

Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        "-k",
        help=f"Show one kind only: {', '.join(KINDS)}.",
        autocompletion=lambda incomplete: beginning(incomplete, KINDS),
    ),
]
Name = Annotated[
    str,
    typer.Argument(help="Such as l1, or prune-filter:l1.", autocompletion=registered_names),
]
Framework = Annotated[
    str | None,
    typer.Option(
        "--framework",
        "-f",
        help="torch or keras, where both exist.",
        autocompletion=lambda incomplete: beginning(incomplete, ("torch", "keras")),
    ),
]


def list_(kind: Kind = None, as_json: AsJson = False) -> None:
    """List algorithms, schedules and parts of every installed plugin."""
    list_names(kind, as_json=as_json)


def show(
    name: Name, kind: Kind = None, framework: Framework = None, as_json: AsJson = False
) -> None:
    """Show the signature, paper, config keys and example of one name."""
    show_name(name, kind, framework, as_json=as_json)

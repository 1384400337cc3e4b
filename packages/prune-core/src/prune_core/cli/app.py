"""The application: its commands, and those of plugins."""

import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from prune_core.__about__ import __version__
from prune_core.cli import doctor, names
from prune_core.cli.plugin_commands import add_plugin_commands
from prune_core.errors import PruneWarning
from prune_core.registry import plugins

__all__ = ["build"]

COMMANDS: dict[str, Callable[..., Any]] = {
    "list": names.list_,
    "show": names.show,
    "doctor": doctor.command,
}


def build() -> typer.Typer:
    """Put the application together from core's commands and those of plugins."""
    app = typer.Typer(
        name="prune",
        help="Make neural networks smaller and faster.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, command in COMMANDS.items():
        app.command(name)(command)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PruneWarning)
        plugins()
        add_plugin_commands(app, taken=COMMANDS)
    said = [str(warning.message) for warning in caught]

    @app.callback()
    def start(
        context: typer.Context,
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", callback=_print_version)
        ] = False,
    ) -> None:
        context.obj = said
        if context.invoked_subcommand != "doctor":  # which shows them in its own way
            for message in said:
                typer.echo(f"Warning: {message}", err=True)

    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prune-core {__version__}")
        raise typer.Exit

"""The application: its commands, those of plugins, and what happens when one of them fails."""

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from prune_core.__about__ import __version__
from prune_core.cli import doctor, new_plugin, show
from prune_core.cli import list as list_
from prune_core.cli.plugin_commands import add_plugin_commands
from prune_core.errors import PruneError, PruneWarning
from prune_core.registry import plugins

__all__ = ["build", "run"]

COMMANDS: dict[str, Callable[..., Any]] = {
    "list": list_.command,
    "show": show.command,
    "doctor": doctor.command,
    "new-plugin": new_plugin.command,
}

INTERRUPTED = 130  # what newer Typer makes, in silence, of Ctrl-C inside a command


def run() -> None:
    """Run `prune`; whatever a user can cause ends in one sentence and exit code 1."""
    try:
        try:
            build()(prog_name="prune")
        finally:
            # Here a broken pipe can still be caught; at the interpreter's end it cannot.
            sys.stdout.flush()
    except PruneError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Aborted.")
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            sys.exit("Aborted.")
        raise
    except BrokenPipeError:
        # Whoever read the output has left. What is still buffered must not be tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


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

"""What this plugin registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def prune_register_commands(app: typer.Typer) -> None:
    """Add `prune verify`."""
    from prune_verify import command

    app.command("verify")(command.command)

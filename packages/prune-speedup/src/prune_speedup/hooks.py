"""What prune-speedup registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference

if TYPE_CHECKING:
    import typer


@hookimpl
def prune_register_engines() -> dict[str, Reference]:
    """Register the engine for torch models."""
    return {
        "torch": Reference(
            "prune_speedup:torch", "Finds coupled channels, removes them, compares the results."
        )
    }


@hookimpl
def prune_register_parts() -> dict[str, dict[str, Reference]]:
    """Register the allocator that sees the whole model."""
    return {
        "allocator": {
            "dependency_aware": Reference(
                "prune_speedup.pruning.dependency_aware:DependencyAwareAllocator",
                "The same channels where they depend on each other.",
            )
        }
    }


@hookimpl
def prune_register_commands(app: typer.Typer) -> None:
    """Add `prune inspect`."""
    from prune_speedup import inspect_command

    app.command("inspect")(inspect_command.command)

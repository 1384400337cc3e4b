"""What this plugin registers: commands, and an exporter.

This module is imported whenever names are listed: it must not import torch. What a Reference
names is imported when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prune_core import Reference, hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def prune_register_exporters() -> Mapping[str, Reference]:
    """Name a format that a recipe can export to, beside those of prune-core."""
    return {
        "huggingface": Reference(
            "prune_recipes.exporters:huggingface", "A folder that from_pretrained reads."
        ),
    }


@hookimpl
def prune_register_commands(app: typer.Typer) -> None:
    """Add what is done with recipes, and with the folders of their runs."""
    from prune_recipes import commands

    for name in ("run", "init", "schema", "compare", "check", "export"):
        app.command(name)(getattr(commands, name))

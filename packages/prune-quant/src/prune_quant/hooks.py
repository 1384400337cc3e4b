"""What this plugin registers.

This module is imported whenever names are listed: it must not import torch. What a Reference
names is imported when somebody asks for it.
"""

from collections.abc import Mapping

from prune_core import Reference, hookimpl


@hookimpl
def prune_register_pruners() -> Mapping[str, Reference]:
    """Name the algorithms of this plugin."""
    return {
        "spread": Reference(
            "prune_quant.spread:SpreadPruner",
            summary="Prunes the output channels whose weights differ least from each other.",
            prunes="output channels",
        )
    }

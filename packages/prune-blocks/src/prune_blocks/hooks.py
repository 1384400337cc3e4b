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
            "prune_blocks.spread:SpreadPruner",
            summary="Prunes the output channels whose weights differ least from each other.",
            prunes="output channels",
        ),
        "expert_frequency": Reference(
            "prune_blocks.experts.criteria:ExpertFrequencyPruner",
            summary="Removes the experts of a mixture that get the fewest tokens.",
            prunes="experts",
        ),
        "expert_activation": Reference(
            "prune_blocks.experts.criteria:ExpertActivationPruner",
            summary="Removes the experts of a mixture whose outputs are smallest in all.",
            prunes="experts",
        ),
        "reap": Reference(
            "prune_blocks.experts.criteria:ReapPruner",
            summary="Removes the experts of a mixture that add least where they are chosen.",
            prunes="experts",
            paper="https://arxiv.org/abs/2510.13999",
        ),
    }

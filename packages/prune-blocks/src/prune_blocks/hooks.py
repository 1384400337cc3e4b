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
        "block_influence": Reference(
            "prune_blocks.layers.block_influence:BlockInfluencePruner",
            summary="Takes out the blocks whose output is most like their input.",
            prunes="blocks",
            paper="https://arxiv.org/abs/2403.03853",
        ),
        "angular_distance": Reference(
            "prune_blocks.layers.angular_distance:AngularDistancePruner",
            summary="Takes out the run of blocks that turns the hidden states least.",
            prunes="blocks",
            paper="https://arxiv.org/abs/2403.17887",
        ),
        "leave_one_out": Reference(
            "prune_blocks.layers.leave_one_out:LeaveOneOutPruner",
            summary="Takes out the blocks and branches without which the loss grows least.",
            prunes="blocks",
        ),
        "depth_and_width": Reference(
            "prune_blocks.layers.depth_and_width:DepthAndWidthPruner",
            summary="Divides one budget between blocks and channels, by what costs least.",
            prunes="blocks and channels",
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
        "token_frequency": Reference(
            "prune_blocks.tokens.token_frequency:TokenFrequencyPruner",
            summary="Removes the tokens of a vocabulary that occur least in data.",
            prunes="tokens",
        ),
    }

"""What this plugin registers.

This module is imported whenever names are listed: it must not import torch. What a Reference
names is imported when somebody asks for it.
"""

from collections.abc import Mapping

from prune_core import Reference, hookimpl


@hookimpl
def prune_register_parts() -> Mapping[str, Mapping[str, Reference]]:
    """Name what makes a pruned model compute more as before."""
    return {
        "reconstructor": {
            "distill": Reference(
                "prune_recover.reconstructor:Distillation",
                summary="All weights that stay, trained to give the outputs of the dense model.",
                paper="https://arxiv.org/abs/1503.02531",
            )
        }
    }

"""Pruning one tensor of one module, with the names of `torch.nn.utils.prune`.

The door to `prune_filter.functional`, which prune-filter brings.
"""

from typing import TYPE_CHECKING

from prune_core.doors import door

if TYPE_CHECKING:
    from prune_filter.functional import *  # noqa: F403

__getattr__, __dir__ = door(
    "prune_filter.functional", "prune-filter", wanted="prune_core.functional"
)

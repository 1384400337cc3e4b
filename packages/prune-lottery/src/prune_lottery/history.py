"""The masks of all rounds, in one byte per value.

What is pruned stays pruned, so that the number of the round that pruned a value says under which
masks it is hidden: those of that round and of all later ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prune_core.masking import Masks

__all__ = ["MaskHistory"]

NEVER = 255


class MaskHistory:
    """Remembers in which round each value was pruned.

    Attributes:
        pruned_in: `{module name: {tensor name: round}}`, 255 for what is there still.
    """

    def __init__(self, pruned_in: Masks | None = None) -> None:
        self.pruned_in: Masks = pruned_in or {}

    def record(self, index: int, masks: Mapping[str, Mapping[str, Tensor]]) -> int:
        """Take in the masks of a round, and forget later ones.

        Returns:
            How many values the masks would bring back; they stay pruned.
        """
        self.forget(index)
        returning = 0
        for module, tensors in masks.items():
            for name, mask in tensors.items():
                kept = mask.detach().to("cpu", torch.bool)
                known = self.pruned_in.setdefault(module, {})
                if name not in known:
                    known[name] = torch.full_like(kept, NEVER, dtype=torch.uint8)
                rounds = known[name]
                returning += int((kept & (rounds != NEVER)).count_nonzero())
                rounds[~kept & (rounds == NEVER)] = index
        return returning

    def forget(self, index: int) -> None:
        """Forget what was pruned in a round or after it."""
        for tensors in self.pruned_in.values():
            for rounds in tensors.values():
                rounds[rounds >= index] = NEVER

    def masks(self, index: int) -> Masks:
        """Return the masks of a round, `{module name: {tensor name: mask}}`."""
        return {
            module: {name: rounds > index for name, rounds in tensors.items()}
            for module, tensors in self.pruned_in.items()
        }

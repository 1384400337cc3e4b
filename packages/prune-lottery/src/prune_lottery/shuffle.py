"""Random masks of the same sparsity: the control for the positions of a ticket's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prune_core.masking import Masks, PrunerModuleWrapper, output_axis

__all__ = ["shuffled"]


def shuffled(masks: Masks, wrappers: Mapping[str, PrunerModuleWrapper], seed: int) -> Masks:
    """Permute the mask of each weight; whole output channels, if whole channels are pruned.

    Args:
        masks: The masks of a ticket.
        wrappers: The wrappers that they are for.
        seed: Of the permutations.
    """
    generator = torch.Generator().manual_seed(seed)
    return {name: _shuffled(tensors, wrappers[name], generator) for name, tensors in masks.items()}


def _shuffled(
    tensors: Mapping[str, Tensor], wrapper: PrunerModuleWrapper, generator: torch.Generator
) -> dict[str, Tensor]:
    target = wrapper.target
    mask = tensors[target]
    axis = output_axis(wrapper.module)
    rows = mask.movedim(axis, 0).reshape(mask.shape[axis], -1)
    if mask.ndim > 1 and torch.equal(rows.all(1), rows.any(1)):
        order = torch.randperm(len(rows), generator=generator, device="cpu")
        by_channel = {n: m[order] for n, m in tensors.items() if n != target}
        return {target: mask.index_select(axis, order), **by_channel}
    order = torch.randperm(mask.numel(), generator=generator, device="cpu")
    # A bias goes with a channel that has no weight left, and lots leave hardly any so.
    ones = {n: torch.ones_like(m) for n, m in tensors.items() if n != target}
    return {target: mask.flatten()[order].reshape(mask.shape), **ones}

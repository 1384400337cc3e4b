"""Propagate masks to what follows a masked channel, along a graph that has been recorded."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from prune_core.masking import Masks
from prune_speedup.pruning.coupling import Coupling

__all__ = ["closed_over"]


def closed_over(coupling: Coupling, masks: Masks) -> Masks:
    """Return the masks of what follows channels that are masked, such as a normalisation."""
    return {
        name: {**masks.get(name, {}), **_both(tensors, masks.get(name, {}))}
        for name, tensors in coupling.closed(masks).items()
    }


def _both(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: mask & others[name] if name in others else mask for name, mask in tensors.items()}

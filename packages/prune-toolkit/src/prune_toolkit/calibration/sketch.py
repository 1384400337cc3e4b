"""A few sums by which a tensor is known again, without keeping it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prune_toolkit.calibration.steps import leaves

__all__ = ["alike", "sketch", "sketches"]


def sketches(tree: Any) -> list[Tensor]:
    """Return a few sums by which the tensors of something are known again."""
    return [sketch(leaf) for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def sketch(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor, that of its absolute values, and how many there are."""
    with torch.inference_mode(False), torch.no_grad():
        flat = tensor.detach().flatten().double().cpu()
        return torch.stack([flat.sum(), flat.abs().sum(), flat.new_tensor(flat.numel())])


def alike(tree: Any, known: list[Tensor]) -> bool:
    """Whether the tensors of something have the sketches that are known."""
    found = sketches(tree)
    return len(found) == len(known) and all(map(_same, found, known))


def _same(one: Tensor, other: Tensor) -> bool:
    if not bool(other.isfinite().all()):
        return not bool(one.isfinite().all())  # whoever looks at the numbers will complain
    return bool((one - other).abs().max() <= 1e-3 * other[1].clamp_min(1e-6))

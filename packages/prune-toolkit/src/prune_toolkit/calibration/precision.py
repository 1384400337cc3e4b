"""How many digits scores are computed with."""

import torch
from torch import Tensor

__all__ = ["counting_type", "wide"]


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, where eight bits would not do; float64 stays what it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def counting_type(device: torch.device) -> torch.dtype:
    """Return the type for sums over a whole data set, which outgrow what float32 can count."""
    return torch.float32 if device.type == "mps" else torch.float64

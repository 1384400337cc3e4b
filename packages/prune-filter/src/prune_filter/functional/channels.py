"""What structured pruning needs to know of a tensor: its channels, their norms and their mask."""

import torch
from torch import Tensor

from prune_core.errors import ConfigError
from prune_filter.functional._errors import DimensionError, NormError


def _validate_structured_pruning(t: Tensor) -> None:
    """Check that `t` has channels, that is at least two dimensions.

    Raises:
        ConfigError: a ValueError, `t` has fewer.
    """
    if t.dim() < 2:
        raise ConfigError(
            f"A tensor of shape {tuple(t.shape)} has no channels; structured pruning needs at "
            "least 2 dimensions. Use an unstructured method for it."
        )


def _validate_pruning_dim(t: Tensor, dim: int) -> None:
    """Check that `t` has a dimension `dim`, counted from either end.

    Raises:
        DimensionError: an IndexError, it has not.
    """
    if not -t.dim() <= dim < t.dim():
        raise DimensionError(
            f"dim={dim} does not exist in a tensor of shape {tuple(t.shape)}; it must be from "
            f"{-t.dim()} to {t.dim() - 1}."
        )


def _compute_norm(t: Tensor, n: float | str, dim: int) -> Tensor:
    """Compute the L`n` norm of each slice of `t` along `dim`.

    Args:
        t: the tensor.
        n: the order, as `p` of `torch.norm`.
        dim: the dimension that survives.

    Returns:
        One norm for each index of `dim`.

    >>> _compute_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), 2, dim=0)
    tensor([5., 1.])
    """
    others = [d for d in range(t.dim()) if d != dim % t.dim()]
    if n == "fro" and len(others) > 2:  # which older torches refuse, and newer ones take so
        n = 2
    try:
        norm: Tensor = torch.norm(t, p=n, dim=others)
    except RuntimeError as error:
        raise NormError(
            f"n={n!r} cannot be taken of the slices of a tensor of shape {tuple(t.shape)} along "
            f"dimension {dim} ({error}); give a number, such as n=2."
        ) from error
    return norm


def _channel_mask(t: Tensor, dim: int, keep: Tensor, default_mask: Tensor) -> Tensor:
    """Spread one boolean per channel over a mask like `t`, on top of `default_mask`."""
    shape = [1] * t.dim()
    shape[dim] = -1
    mask = torch.ones_like(t, memory_format=torch.contiguous_format)
    mask *= keep.to(mask).view(shape)
    mask *= default_mask.to(dtype=mask.dtype)
    return mask

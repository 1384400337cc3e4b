"""Masking what a layer makes instead of its weights, where that is the same and takes less.

With a zero for a row, a channel is zero whether weights or results are multiplied:

    x @ (weight * rows).T + bias * rows    is    (x @ weight.T + bias) * rows

A linear layer of 4096 x 4096 makes of 100 tokens a fortieth as many numbers as it has weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from prune_core.masking.plain_names import SUFFIX
from prune_core.masking.slices import whole_rows

__all__ = ["factors_of_results"]

_FEW = 10_000
"""Weights of a layer that is too small for it to matter what is multiplied."""

_CHANNELS: dict[Any, int] = {
    (kind, kind.forward): axis
    for kind, axis in ((nn.Linear, -1), (nn.Conv1d, -2), (nn.Conv2d, -3), (nn.Conv3d, -4))
}
"""The axis of their results along which the rows of their weights lie, from the end.

With what they do: somebody may have given a layer, or all of them, another `forward`.
"""


def factors_of_results(
    module: nn.Module,
    masks: Mapping[str, Tensor | None],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Tensor | None:
    """Return what a layer's result can be multiplied by instead of its weights, where that pays.

    It does for a layer with more weights than results, if whole rows are masked, and nobody looks
    at the result before. What ran before does not matter: a forward that is run again for its
    gradients, as `torch.utils.checkpoint` does, has to do the same.

    Args:
        module: The layer.
        masks: What masks it, by names such as `weight_mask`.
        args: What it is called with.
        kwargs: What it is called with by name.
    """
    axis = _CHANNELS.get((type(module), getattr(module.forward, "__func__", None)))
    if axis is None or kwargs or len(args) != 1 or _is_watched(module):
        return None
    weight, mask = module._parameters["weight"], masks["weight" + SUFFIX]
    if weight is None or mask is None or not _is_plain(weight) or not _is_plain(args[0]):
        return None
    if weight.numel() < max(_FEW, _count_made(module, weight, args[0], axis)):
        return None
    try:
        rows = whole_rows(mask)
        if rows is None:
            return None
        if module.bias is not None:
            beside = masks["bias" + SUFFIX]
            if beside is None or not torch.equal(beside, rows):
                return None
    except RuntimeError:  # a transform of torch.func runs, where tensors have no numbers
        return None
    return rows.view(-1, *[1] * -(axis + 1)).view(torch.uint8)


def _is_watched(module: nn.Module) -> bool:
    """Whether hooks see what a module is given or makes."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or torch_module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def _is_plain(tensor: Any) -> bool:
    """Whether results made of it can be multiplied by rows, and are not too large to be.

    In half precision they may be infinite in a masked channel, and zero times infinity is no zero.
    """
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.dtype is not torch.float16
    )


def _count_made(module: Any, weight: Tensor, x: Tensor, axis: int) -> int:
    """About how many numbers a layer makes of its input: as many as if it were padded well."""
    if x.ndim < -axis or not x.shape[axis]:
        return 0  # it will say itself what is wrong
    steps = 1 if axis == -1 else prod(module.stride)
    return x.numel() // x.shape[axis] * weight.shape[0] // steps

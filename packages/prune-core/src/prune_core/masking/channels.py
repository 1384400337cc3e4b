"""Masking whole channels without a product for each weight: they are zeros, whatever they are of.

With a zero for a row of weights, and of the bias, a channel of the result is zero. So a layer can

* compute the other channels alone, from the rows that are kept, and put zeros between them,
* or compute all of them, and multiply its result: `(x @ weight.T + bias) * rows`.

The first saves as much of a step as there is masked, but copies rows of weights and channels of
results; it pays for a batch. The second pays for a layer with more weights than results: one of
4096 x 4096 makes of a single token a 4096th as many numbers as it has weights.

A number that is not finite makes a difference: times zero it is NaN, and a channel that is left out
is zero, as is what it adds to gradients. The small model has no such channel either.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

from prune_core.masking.plain_names import SUFFIX
from prune_core.masking.slices import whole_rows

__all__ = ["result_by_channels"]

_FEW = 10_000
"""Weights of a layer that is too small for it to matter whether they or results are multiplied."""

_CALLS, _A_WEIGHT, _A_RESULT = 400_000, 10, 50
"""What it costs to leave channels out, once, for each weight and for each result.

In products of a training step that are saved, of which a processor does some 15 in a nanosecond.
Measured with one thread, and then a third as much again, to be on the safe side.
"""

_AT_ONCE = 16
"""Channels that a processor computes together: with a few less it saves nothing."""

_CHANNELS: dict[Any, int] = {
    (kind, kind.forward): axis
    for kind, axis in ((nn.Linear, -1), (nn.Conv1d, -2), (nn.Conv2d, -3), (nn.Conv3d, -4))
}
"""The axis of their results along which the rows of their weights lie, from the end.

With what they do: somebody may have given a layer, or all of them, another `forward`.
"""


def result_by_channels(
    module: nn.Module,
    masks: Mapping[str, Tensor | None],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Tensor | None:
    """Return what a layer makes if it is masked by channels; None where weights are to be masked.

    That is where single weights are masked, where it would take longer, and where somebody looks at
    what happens within. What ran before does not matter: a forward that is run again for its
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
    places, weights, channels = _count_places(module, args[0], axis), weight.numel(), len(weight)
    fewer_results = weights >= max(_FEW, places * channels)
    if not fewer_results and not _pays(places, weights, channels, 0):
        return None
    rows = _rows_alone(module, masks, mask)
    if rows is None:
        return None
    kept = int(rows.count_nonzero())
    if kept > 1 and _pays(places, weights, channels, kept) and _can_leave_out(module):
        return _of_kept(module, rows.nonzero().flatten(), axis, args[0])
    if fewer_results and not _may_overflow():
        result: Tensor = module(*args)
        return result * rows.view(-1, *[1] * -(axis + 1)).view(torch.uint8)
    return None


def _of_kept(module: Any, kept: Tensor, axis: int, x: Tensor) -> Tensor:
    """Compute some channels, two at least, and put zeros where the others would be.

    The module stays as it is meanwhile: other threads may run it, too.
    """
    weight, bias = _rows_of(module.weight, kept), module.bias
    if bias is not None:
        bias = bias.index_select(0, kept)
    if axis == -1:
        result = functional.linear(x, weight, bias)
    else:
        result = module._conv_forward(x, weight, bias)
    shape = list(result.shape)
    shape[axis] = len(module.weight)
    if result.is_contiguous():
        zeros = result.new_zeros(shape)
    else:  # it lies in memory as it would with all its channels, which a single one does not tell
        order = result.dim_order()
        zeros = torch.empty_permuted(shape, order, dtype=result.dtype, device=result.device)
        zeros.zero_()
    return zeros.index_copy_(axis, kept, result)


def _rows_of(weight: Tensor, kept: Tensor) -> Tensor:
    """Return some rows of a weight, in memory as the whole is: by channels, results are as well."""
    if weight.is_contiguous():
        return weight.index_select(0, kept)
    order = weight.dim_order()
    back = [order.index(axis) for axis in range(weight.ndim)]
    return weight.permute(order).index_select(back[0], kept).permute(back)


def _pays(places: int, weights: int, channels: int, kept: int) -> bool:
    """Whether it takes less to leave out the channels that are not kept."""
    computed = -(-kept // _AT_ONCE) * _AT_ONCE
    saved = places * (weights // channels) * (channels - computed)
    # Threads share products well, and copying badly.
    costs = _CALLS + _A_WEIGHT * weights + _A_RESULT * places * channels
    return saved > costs * torch.get_num_threads()


def _rows_alone(
    module: nn.Module, masks: Mapping[str, Tensor | None], mask: Tensor
) -> Tensor | None:
    """Return which rows are kept, if the others are masked whole and the bias with them."""
    try:
        rows = whole_rows(mask)
        if rows is None or module._parameters["bias"] is None:
            return rows
        beside = masks["bias" + SUFFIX]
        return rows if beside is not None and torch.equal(beside, rows) else None
    except RuntimeError:  # a transform of torch.func runs, where tensors have no numbers
        return None


def _can_leave_out(module: nn.Module) -> bool:
    """Whether no groups share channels, and no torch.func, which has no fast way for this, runs."""
    one_group = vars(module).get("groups", 1) == 1
    return one_group and torch._C._functorch.peek_interpreter_stack() is None


def _is_watched(module: nn.Module) -> bool:
    """Whether hooks see what a module is given or makes, or a mode of torch each operation."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or torch_module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def _is_plain(tensor: Any) -> bool:
    """Whether results made of it can be multiplied by rows, and are not too large to be."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.dtype is not torch.float16
    )


def _may_overflow() -> bool:
    """Whether results are in half precision, though weights are not.

    There they may be infinite in a masked channel, and zero times infinity is no zero.
    """
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.float16


def _count_places(module: Any, x: Tensor, axis: int) -> int:
    """About how many numbers a layer makes in each channel: as many as if it were padded well."""
    width: int = module.weight.shape[1] * vars(module).get("groups", 1)
    if x.ndim < -axis or not 0 < width == x.shape[axis]:
        return 0  # it will say itself what is wrong
    steps = 1 if axis == -1 else prod(module.stride)
    return x.numel() // width // steps

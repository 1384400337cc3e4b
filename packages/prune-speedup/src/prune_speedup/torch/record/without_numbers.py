"""Leave out the arithmetic of a forward of which only the shapes are wanted.

A recording needs to know which calls a model makes, and of what shape their results are. Nearly
all the time of a forward goes into products of matrices and convolutions, of which the shapes tell
what they make. So these make blanks here, and so do a few that touch all of a large result:

    convolution   (1, 3, 8, 8) with (6, 3, 3, 3)   makes a blank of (1, 6, 6, 6)
    addmm         (4), (2, 3) and (3, 4)           makes a blank of (2, 4)

Everything else is computed with whatever stands there. That is right as long as nobody asks
what the numbers are; who does gets a `NumbersWantedError`, and the model has to be run as it is.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Blanks", "NumbersWantedError", "has_numbers"]


class NumbersWantedError(Exception):
    """A forward does something by numbers that were not computed."""


class Blanks:
    """Makes what operators return, in all but its numbers.

    On the processor all of it lies in the same memory, one over the other: what stands there does
    not matter, and no large piece has to be asked for and filled.
    """

    def __init__(self) -> None:
        """Begin without memory."""
        self._memory = np.zeros(0, np.uint8)

    def made(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operator makes; `None` if it has to be run to know that.

        It has to where its arguments do not fit, too: then it says so itself.
        """
        makes = _MAKES.get(target)
        return None if makes is None else makes(self, *args, **kwargs)

    def blank(self, like: Tensor, *shape: int) -> Tensor:
        """A tensor of this shape, and of the type of another one."""
        kind, count = like.dtype, prod(shape)
        if not count or not like.is_cpu:
            return torch.zeros(shape, dtype=kind, device=like.device)
        if len(self._memory) < count * kind.itemsize:
            # Earlier ones keep what they have. The system gives zeros only where somebody looks.
            self._memory = np.zeros(count * kind.itemsize, np.uint8)
        return torch.frombuffer(self._memory, dtype=kind, count=count).view(shape)


def has_numbers(target: Any) -> bool:
    """Whether an operator computes what it makes, in any case."""
    return target not in _MAKES


def _are_plain(*tensors: Tensor) -> bool:
    """Whether these are ordinary, of one type, on one device, and in the usual order in memory."""
    first = tensors[0]
    kind, device = first.dtype, first.device
    return kind in _FLOATS and all(
        type(each) in _PLAIN
        and each.dtype is kind
        and each.device == device
        and each.layout is torch.strided
        for each in tensors
    )


def _is_in_order(tensor: Tensor) -> bool:
    """Whether a tensor lies in memory axis by axis, those of length one included.

    `is_contiguous()` looks past these. But a weight of 6 x 4 x 1 x 1 with the strides (4, 1, 4, 4)
    has its channels last, and so has what a convolution makes with it.
    """
    step = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if stride != step:
            return False
        step *= size
    return True


_PLAIN = (Tensor, nn.Parameter)
_FLOATS = (torch.float32, torch.float64, torch.bfloat16)


def _convolution(
    blanks: Blanks,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor | None:
    into, per, *kernel = weight.shape
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if (
        not (_is_in_order(x) and _is_in_order(weight))
        or x.ndim != weight.ndim
        or not _are_plain(*tensors)
    ):
        return None
    takes, makes = (into, per * groups) if transposed else (per * groups, into)
    if x.shape[1] != takes or into % groups or (bias is not None and bias.shape != (makes,)):
        return None
    if min(*stride, *dilation) < 1 or min(padding) < 0:
        return None
    sizes = []
    for at, (size, width) in enumerate(zip(x.shape[2:], kernel, strict=True)):
        # One number may stand for all axes.
        step, pad, gap = (each[at % len(each)] for each in (stride, padding, dilation))
        reach = gap * (width - 1) + 1
        if transposed:
            more = output_padding[at % len(output_padding)]
            if not 0 <= more < max(step, gap):
                return None
            sizes.append((size - 1) * step - 2 * pad + reach + more)
        else:
            sizes.append((size + 2 * pad - reach) // step + 1)
    some = x.numel() and min(sizes, default=0) > 0
    return blanks.blank(x, len(x), makes, *sizes) if some else None


def _product(blanks: Blanks, left: Tensor, right: Tensor) -> Tensor | None:
    """A product of two matrices, or of as many as there are in both stacks."""
    fits = left.ndim == right.ndim and left.shape[-1] == right.shape[-2]
    if not fits or left.shape[:-2] != right.shape[:-2] or not _are_plain(left, right):
        return None
    return blanks.blank(left, *left.shape[:-1], right.shape[-1])


def _product_and_sum(
    blanks: Blanks,
    added: Tensor,
    left: Tensor,
    right: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor | None:
    made = _product(blanks, left, right)
    if made is None or not _are_plain(added, made) or not _spreads(added, made.shape):
        return None
    return made


def _spreads(tensor: Tensor, shape: Sequence[int]) -> bool:
    """Whether a tensor can be repeated along axes of length one, and new ones, to this shape."""
    sizes, lead = tensor.shape, len(shape) - tensor.ndim
    return lead >= 0 and all(size in (1, of) for size, of in zip(sizes, shape[lead:], strict=True))


def _batch_norm(
    blanks: Blanks,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor] | None:
    if training or mean is None or variance is None or not _is_in_order(x):
        return None
    tensors = [each for each in (weight, bias, mean, variance) if each is not None]
    if x.ndim < 2 or not _are_plain(x, *tensors) or x.device.type != "cpu":
        return None
    if any(each.shape != x.shape[1:2] for each in tensors):
        return None
    return blanks.blank(x, *x.shape), blanks.blank(x, 0), blanks.blank(x, 0)


def _attention(
    blanks: Blanks,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor] | None:
    same = query.ndim == 4 and key.shape == value.shape and query.shape[:2] == key.shape[:2]
    if not same or query.shape[3] != key.shape[3] or not _are_plain(query, key, value):
        return None
    if dropout_p or not query.numel() or not key.numel():
        return None
    batch, heads, length, _ = query.shape
    if attn_mask is not None and attn_mask.shape != (batch, heads, length, key.shape[2]):
        return None
    wide = torch.float64 if query.dtype is torch.float64 else torch.float32
    sums = torch.zeros((batch, length, heads), dtype=wide, device=query.device)
    return torch.zeros_like(query), sums.transpose(1, 2)


def _each(blanks: Blanks, x: Tensor, *told: Any, **settings: Any) -> Tensor | None:
    """A function of each number."""
    return blanks.blank(x, *x.shape) if _are_plain(x) and _is_in_order(x) else None


def _in_place(blanks: Blanks, x: Tensor, *told: Any, **settings: Any) -> Tensor | None:
    """A function of each number, which is put in its place."""
    # One number in several places, as of an expanded tensor, is not written to.
    return x if _are_plain(x) and x.is_contiguous() else None


_aten = torch.ops.aten

_MAKES: dict[Any, Callable[..., Any]] = {
    _aten.convolution.default: _convolution,
    _aten.mm.default: _product,
    _aten.bmm.default: _product,
    _aten.addmm.default: _product_and_sum,
    _aten.baddbmm.default: _product_and_sum,
    _aten.native_batch_norm.default: _batch_norm,
    _aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    **dict.fromkeys([each.default for each in (_aten.relu, _aten.silu, _aten.gelu)], _each),
    **dict.fromkeys(
        [each.default for each in (_aten.relu_, _aten.silu_, _aten.hardtanh_)], _in_place
    ),
}

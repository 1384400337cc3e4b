"""How a layer sees its input: as rows of features, each multiplied with a column of its weight.

A linear layer computes `y = W x` for every row x of its input. A convolution does the same for
every patch that its kernel covers: with 3 input channels and a 2 × 2 kernel a row has 12 features.
A grouped convolution is several such layers side by side, and an embedding is a linear layer
whose rows have a single 1. So one form serves them all:

    weight matrix   (groups, outputs of a group, features)
    rows            (groups, number of rows, features)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.masking import weight_name
from prune_toolkit.calibration.precision import wide

__all__ = [
    "INPUT_TYPES",
    "bias_name",
    "feature_axis",
    "first_input",
    "has_bias",
    "is_layer",
    "matrix_of",
    "patches_of",
    "pieces_of",
    "row_mask",
    "rows_of",
    "sums_of",
    "weight_of",
]

INPUT_TYPES = ("Linear", "Conv1D", "Conv1d", "Conv2d", "Conv3d", "Embedding", "MultiheadAttention")
"""Class names of the layers whose inputs are understood."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# How many numbers an unfolded piece of an input may have: 64 MiB in float32.
_PIECE = 1 << 24
# How many numbers are added up in float32 before they meet others: the error is of rounding one.
_FEW = 64


def is_layer(module: nn.Module) -> bool:
    """Whether the inputs of a module can be seen as rows of features."""
    if isinstance(module, nn.MultiheadAttention):
        return weight_name(module) is not None
    return _stores_input_first(module) or isinstance(
        module, (nn.Linear, nn.Embedding, *_CONVOLUTIONS)
    )


def _stores_input_first(module: nn.Module) -> bool:
    """Whether this is the `Conv1D` of transformers, told by what it has."""
    return "nf" in vars(module)


def bias_name(module: nn.Module) -> str:
    """Return the name that the bias of a layer has, or would have."""
    return (weight_name(module) or "weight").removesuffix("weight") + "bias"


def has_bias(module: nn.Module) -> bool:
    """Whether a layer adds a bias to its outputs."""
    return isinstance(getattr(module, bias_name(module), None), nn.Parameter)


def feature_axis(module: nn.Module) -> int:
    """Return the axis of the weight along which the input's channels lie."""
    return 0 if isinstance(module, nn.Embedding) or _stores_input_first(module) else 1


def matrix_of(module: nn.Module, weight: Tensor) -> Tensor:
    """View a weight, or a mask of one, as `(groups, outputs of a group, features)`."""
    if feature_axis(module) == 0:
        return weight.t().unsqueeze(0)
    groups = getattr(module, "groups", 1)
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def weight_of(module: nn.Module, matrix: Tensor) -> Tensor:
    """Undo `matrix_of`."""
    if feature_axis(module) == 0:
        return matrix.squeeze(0).t()
    shape = module.get_parameter(weight_name(module) or "weight").shape
    return matrix.reshape(shape)


def first_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the tensor that a layer multiplies its weight with, or None where that is not one.

    Attention with a projection for queries, keys and values in one weight is such a layer where
    all three are the same tensor.
    """
    given = [*args, *kwargs.values()]
    if isinstance(module, nn.MultiheadAttention):
        query, key, value = (
            args[place] if place < len(args) else kwargs.get(name)
            for place, name in enumerate(("query", "key", "value"))
        )
        return query if query is key is value and isinstance(query, Tensor) else None
    return next((value for value in given if isinstance(value, Tensor)), None)


def row_mask(module: nn.Module, inputs: Tensor, mask: Tensor | None) -> Tensor | None:
    """Return which rows of an input count, one boolean each, or None for all.

    Args:
        module: The layer.
        inputs: Its input.
        mask: Which tokens of the batch are no padding, `(samples, tokens)`. It says nothing of
            an input that is laid out in another way, such as the tokens that reach one expert.
    """
    if mask is None or isinstance(module, _CONVOLUTIONS):
        return None
    tokens = inputs.shape if isinstance(module, nn.Embedding) else inputs.shape[:-1]
    if isinstance(module, nn.MultiheadAttention) and not module.batch_first and len(tokens) == 2:
        mask = mask.t()
    if tokens == mask.shape or tuple(tokens) == (mask.numel(),):
        return mask.reshape(-1).to(inputs.device, torch.bool)
    return None


def rows_of(module: nn.Module, inputs: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
    """Yield the rows of an input, `(groups, rows, features)`, in pieces of bounded size.

    An embedding has none: its rows would be as long as its vocabulary. See `sums_of`.
    """
    if not isinstance(module, _CONVOLUTIONS):
        rows = wide(inputs.reshape(-1, inputs.shape[-1]))
        if mask is not None:
            rows = rows[mask]
        yield from (piece.unsqueeze(0) for piece in torch.split(rows, _rows_in_a_piece(rows)))
        return
    dims = len(module.kernel_size)
    for piece in pieces_of(patches_of(module, inputs)):
        # (samples, channels, places …, kernel …) becomes (groups, samples · places, features).
        split = piece.reshape(len(piece), module.groups, -1, *piece.shape[2:])
        places = range(3, 3 + dims)
        kernel = range(3 + dims, 3 + 2 * dims)
        rows = wide(split.permute(1, 0, *places, 2, *kernel))
        yield rows.reshape(module.groups, -1, prod(rows.shape[2 + dims :]))


def _rows_in_a_piece(rows: Tensor) -> int:
    return max(1, _PIECE // max(1, rows.shape[-1]))


def _padded(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor) -> Tensor:
    """Pad as the layer does; an input without samples becomes one sample."""
    if inputs.ndim == len(module.kernel_size) + 1:
        inputs = inputs.unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padding = module._reversed_padding_repeated_twice
    return F.pad(inputs, padding, mode=mode) if any(padding) else inputs


def patches_of(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor) -> Tensor:
    """Return a view `(samples, channels, places …, kernel …)`, without copies of numbers."""
    patches = _padded(module, inputs)
    for axis, (kernel, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True), start=2
    ):
        patches = patches.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    return patches


def pieces_of(patches: Tensor) -> tuple[Tensor, ...]:
    """Cut patches into pieces of bounded size, of whole samples."""
    samples = max(1, _PIECE * len(patches) // max(1, patches.numel()))
    return torch.split(patches, samples)


def _summed(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over rows: a few in their own type, which is fast, and those sums in a wide one."""
    few = len(rows) // _FEW * _FEW
    sums = rows[:few].reshape(-1, _FEW, rows.shape[-1]).sum(1).sum(0, dtype=dtype)
    return sums + rows[few:].sum(0, dtype=dtype)


def sums_of(
    module: nn.Module, inputs: Tensor, dtype: torch.dtype, mask: Tensor | None = None
) -> tuple[int, Tensor, Tensor]:
    """Return the number of rows, and of each feature the sum and the sum of squares.

    Nothing is unfolded: of a convolution's features, each is a slice of the padded input.

    Returns:
        The number of rows, and two tensors `(groups, features)`.
    """
    if isinstance(module, nn.Embedding):
        words = inputs.reshape(-1) if mask is None else inputs.reshape(-1)[mask]
        counts = torch.bincount(words, minlength=module.num_embeddings).to(dtype).unsqueeze(0)
        return words.numel(), counts, counts.clone()
    if not isinstance(module, _CONVOLUTIONS):
        rows = wide(inputs.reshape(-1, inputs.shape[-1]))
        rows = rows if mask is None else rows[mask]
        total, power = _summed(rows, dtype), _summed(rows.square(), dtype)
        return len(rows), total.unsqueeze(0), power.unsqueeze(0)
    patches = patches_of(module, inputs)
    dims = len(module.kernel_size)
    over = [0, *range(2, 2 + dims)]
    sums, squared = [], []
    for place in product(*(range(size) for size in module.kernel_size)):
        at: tuple[Any, ...] = (..., *place)
        feature = wide(patches[at])
        sums.append(feature.sum(over, dtype=dtype))
        squared.append(feature.square().sum(over, dtype=dtype))
    count = patches.numel() // max(1, patches.shape[1] * prod(module.kernel_size))
    total, power = (torch.stack(each, 1).view(module.groups, -1) for each in (sums, squared))
    return count, total, power

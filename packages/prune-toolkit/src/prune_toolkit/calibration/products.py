"""The products of a layer's features, summed over the rows of an input: its Gram matrix.

A convolution sees the same numbers in many patches. Moved by one place, a patch holds at `k + 1`
what it held at `k`, so that two sums of products differ by the first and the last patch only:

    G[k+1, k'+1] = G[k, k'] − (what the first patch gives) + (what the last one gives)

    x:  0 1 2 3 4      patches of three: 012 123 234
    G[0,0] = 0·0 + 1·1 + 2·2,    G[1,1] = 1·1 + 2·2 + 3·3

So only the rows `G[0, :]` are summed over all patches: with a kernel of 64, 1/64 of the work.
"""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from prune_toolkit.calibration.layers import patches_of, pieces_of, rows_of
from prune_toolkit.calibration.precision import wide

__all__ = ["add_products"]

_WORTH_IT = 0.7
"""Up to which share of the work the other way is gone."""

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def add_products(
    products: Tensor, module: nn.Module, inputs: Tensor, mask: Tensor | None = None
) -> None:
    """Add the products of the features of an input, `(groups, features, features)`, in place."""
    if isinstance(module, Convolution):
        patches = patches_of(module, inputs)
        axis = _long_axis(module, patches)
        if axis is not None:
            for piece in pieces_of(patches):
                _add_moved(products, module, piece, axis)
            return
    for piece in rows_of(module, inputs, mask):
        products += piece.transpose(1, 2) @ piece


def _long_axis(module: Convolution, patches: Tensor) -> int | None:
    """Return the axis along which patches overlap most, if that saves work."""
    shares = {}
    for axis, kernel in enumerate(module.kernel_size):
        places = patches.shape[2 + axis]
        # Moved by one place, a patch must hold at k + 1 what it held at k.
        if module.stride[axis] == module.dilation[axis] and kernel > 1 and places:
            shares[axis] = 1 / kernel + 2 / places
    best = min(shares, key=shares.__getitem__, default=None)
    return None if best is None or shares[best] > _WORTH_IT else best


def _add_moved(products: Tensor, module: Convolution, patches: Tensor, axis: int) -> None:
    dims, groups = len(module.kernel_size), module.groups
    kernel = module.kernel_size[axis]
    others = [size for place, size in enumerate(module.kernel_size) if place != axis]
    channels = patches.shape[1] // groups
    features = channels * prod(others)

    def rows(part: Tensor, places: int) -> Tensor:
        """Make patches `(groups, rows, kernel · features)`, the long axis of the kernel in front.

        Args:
            part: `(samples, channels, places …, kernel …)`.
            places: How many axes of places there are.
        """
        split = part.reshape(len(part), groups, channels, *part.shape[2:])
        split = wide(split.movedim(3 + places + axis, 0))
        order = (2, 1, *range(4, 4 + places), 0, 3, *range(4 + places, split.ndim))
        return split.permute(order).reshape(groups, -1, len(split) * features)

    # Of features at k and k + lag, for every lag; beginning with k = 0.
    lags = products.new_zeros(groups, features, kernel * features)
    for piece in pieces_of(patches):
        every = rows(piece, dims)
        lags += every[:, :, :features].transpose(1, 2) @ every
    first, last = (rows(patches.select(2 + axis, place), dims - 1) for place in (0, -1))
    # Sums with the long axis of the kernel in front, which are written and read in long runs.
    found = products.new_empty(groups, kernel, features, kernel, features)
    for k in range(kernel):
        lags = lags[:, :, : (kernel - k) * features]
        if k:
            gone, come = first[:, :, (k - 1) * features : -features], last[:, :, k * features :]
            lags += come[:, :, :features].transpose(1, 2) @ come
            lags -= gone[:, :, :features].transpose(1, 2) @ gone
        blocks = lags.view(groups, features, kernel - k, features).transpose(1, 2).contiguous()
        found[:, k, :, k:] = blocks.transpose(1, 2)
        found[:, k:, :, k] = blocks.transpose(2, 3)
    shape = (channels, *others)
    sizes = (channels, *module.kernel_size)
    seen = products.view(groups, *sizes, *sizes).movedim((2 + axis, 3 + dims + axis), (1, 2))
    seen += found.view(groups, kernel, *shape, kernel, *shape).movedim(2 + len(shape), 2)

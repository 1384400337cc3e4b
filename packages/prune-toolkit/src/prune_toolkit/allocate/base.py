"""The third step of a basic pruner: from scores to masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, isnan, prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prune_core.errors import ConfigError, PruneError
from prune_core.masking import Masks, PrunerModuleWrapper, output_axis
from prune_core.masking.recurrent import is_recurrent, spread, unspread
from prune_core.masking.slices import held_on
from prune_toolkit.collect import check_channels
from prune_toolkit.score import as_list, check_blocks

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = ["SparsityAllocator", "check_scores"]


class SparsityAllocator(ABC):
    """Decides which slices are pruned.

    Args:
        pruner: The pruner; its wrappers hold the settings and the masks in force.
        dim: The axes of the weight that the scores stand for, or None for all.
        block_sparse_size: The sizes of the blocks that one score stands for, one for each axis.
        continuous_mask: Whether what is masked stays masked.
        channels: Whether the scores are for output channels, whichever axis of the weight those
            lie along. Takes the place of `dim`.
        transform: Applied to the scores piece by piece before they are compared, such as
            `torch.abs`, so that they need not all be transformed at once.
    """

    def __init__(
        self,
        pruner: Pruner,
        dim: int | Sequence[int] | None = None,
        block_sparse_size: int | Sequence[int] | None = None,
        continuous_mask: bool = True,
        channels: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.pruner = pruner
        self.dim = as_list(dim)
        self.block_sparse_size = as_list(block_sparse_size)
        self.continuous_mask = continuous_mask
        self.channels = channels
        self.transform = transform
        check_blocks(self.dim, self.block_sparse_size)
        self.check_settings()

    def check_settings(self) -> None:
        """Refuse what cannot be allocated; at once, for data may take a training to gather."""
        if self.channels:
            for wrapper in self.pruner.get_modules_wrapper().values():
                check_channels(wrapper)

    @abstractmethod
    def generate_sparsity(self, metrics: Mapping[str, Tensor]) -> Masks:
        """Return `{module name: {tensor name: mask}}` for scores `{module name: tensor}`.

        Args:
            metrics: The scores of each module; the smallest are pruned.
        """

    def for_each_module(self) -> SparsityAllocator:
        """Return what allocates within single modules, once it is settled what each loses.

        An allocator that compares modules with each other returns another one here; see
        `compares_modules`.
        """
        return self

    @property
    def compares_modules(self) -> bool:
        """Whether what a module loses depends on the scores of others."""
        return type(self).for_each_module is not SparsityAllocator.for_each_module

    def axes(self, wrapper: PrunerModuleWrapper) -> list[int]:
        """Return the axes of a weight that its scores stand for.

        Args:
            wrapper: The wrapped module.
        """
        if self.channels:
            return [output_axis(wrapper.module)]
        if self.dim is not None:
            return self.dim
        return list(range(wrapper.parameter(wrapper.target).ndim))

    def parts(self, wrapper: PrunerModuleWrapper) -> int:
        """Return of how many parts a weight consists, each of which is masked as a whole.

        A sparsity s masks `floor(s · parts)` of them, so a budget knows what masks can come to.

        Args:
            wrapper: The wrapped module.
        """
        shape = wrapper.parameter(wrapper.target).shape
        sizes = [shape[axis] for axis in self.axes(wrapper)]
        blocks = [*(self.block_sparse_size or ()), *[1] * len(sizes)]
        return prod(size // block for size, block in zip(sizes, blocks, strict=False))

    def _expand_mask(self, name: str, mask: Tensor, own: bool = True) -> dict[str, Tensor]:
        """Spread a mask of scores over the weight, and over the bias where that follows.

        Args:
            name: The module.
            mask: One value for each score.
            own: Whether each weight gets a value of its own, or what is returned may be a view.
        """
        wrapper = self.pruner._wrappers[name]
        if is_recurrent(wrapper.module):
            return spread(wrapper.module, mask)
        weight = wrapper.parameter(wrapper.target)
        axes, scored = self.axes(wrapper), mask.shape
        for place, size in enumerate(self.block_sparse_size or ()):
            if place < mask.ndim:
                mask = mask.repeat_interleave(size, dim=place)
        sizes = weight.shape
        if any(a >= len(sizes) for a in axes) or mask.shape != (*(sizes[a] for a in axes),):
            raise ConfigError(
                f"The scores of {name!r} have the shape {tuple(scored)}, which is not that of its "
                f"weight, {tuple(sizes)}, along dim {axes} in blocks of "
                f"{self.block_sparse_size or 1}. Calculator and allocator need the same dim and "
                "block_sparse_size."
            )
        shape = [1] * weight.ndim
        for axis, length in zip(axes, mask.shape, strict=True):
            shape[axis] = length
        wide = mask.reshape(shape).expand(weight.shape)
        bias = self._bias_mask(wrapper, wide)
        return {wrapper.target: wide.clone() if own and len(axes) < weight.ndim else wide} | bias

    def _bias_mask(self, wrapper: PrunerModuleWrapper, weight_mask: Tensor) -> dict[str, Tensor]:
        """Mask the bias of each output channel that has no weight left."""
        *_, bias = wrapper.masked_names
        if bias == wrapper.target:
            return {}
        axis = output_axis(wrapper.module)
        if wrapper.parameter(bias).shape != (weight_mask.shape[axis],):
            return {}
        if weight_mask.ndim < 2:
            return {bias: weight_mask.clone()}
        held = weight_mask if weight_mask.dtype == torch.bool else weight_mask != 0
        return {bias: held_on(held, axis).type_as(weight_mask).clone()}

    def _compress_mask(self, mask: Tensor, wrapper: PrunerModuleWrapper | None = None) -> Tensor:
        """Undo `_expand_mask`: 1 for each score of which anything is left in the mask."""
        axes = self.axes(wrapper) if wrapper is not None else self.dim
        if wrapper is not None and is_recurrent(wrapper.module):
            return unspread(wrapper.module, mask.amax(dim=1))
        if axes is not None:
            gone = [axis for axis in range(mask.ndim) if axis not in axes]
            mask = mask.amax(dim=gone) if gone else mask
        for place, size in enumerate(self.block_sparse_size or ()):
            mask = mask.unfold(place, size, size).amax(dim=-1)
        return mask.clone()

    def _alive(self, name: str) -> Tensor | None:
        """Return which scores may still be pruned; None when that is all of them."""
        wrapper = self.pruner._wrappers[name]
        mask = wrapper._buffers[f"{wrapper.target}_mask"]
        if mask is None or not self.continuous_mask:
            return None
        return self._compress_mask(mask, wrapper)


def check_scores(name: str, scores: Tensor) -> None:
    """Refuse scores that cannot be ordered, by the name of the module."""
    if not scores.numel():
        return
    least, most = (float(extreme) for extreme in torch.aminmax(scores))
    if not (isfinite(least) and isfinite(most)):
        kind = "NaN" if isnan(least) or isnan(most) else "infinite values"
        raise PruneError(
            f"The scores of {name!r} contain {kind}, so they say nothing about what to prune; "
            f"look at {name}.weight, and at the data if the algorithm uses any."
        )

"""Allocators that treat each module on its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prune_core.amount import number_to_prune
from prune_core.errors import ConfigError
from prune_core.masking import Masks, PrunerModuleWrapper, output_axis
from prune_toolkit.allocate.base import SparsityAllocator, check_scores
from prune_toolkit.allocate.selection import smallest

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = [
    "BankSparsityAllocator",
    "NMSparsityAllocator",
    "NormalSparsityAllocator",
    "check_n_of_m",
    "keep_in_rows",
    "keep_mask",
]

# Up to here one selection is faster than counting digits.
FEW = 1 << 17


def keep_mask(
    scores: Tensor,
    count: int,
    alive: Tensor | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return a mask without the `count` smallest scores.

    What is not alive is pruned already and is counted in; nothing of it comes back.

    Args:
        scores: The scores.
        count: How many go.
        alive: Which are not pruned yet, or None for all.
        transform: Applied to the scores before they are compared, or None.
    """
    if scores.numel() <= FEW:
        row = (scores if transform is None else transform(scores)).flatten()
        if alive is not None:
            row = row.masked_fill(~alive.flatten(), -torch.inf)
            count = max(count, alive.numel() - int(alive.count_nonzero()))
        return keep_in_rows(row, count).view(scores.shape)
    if alive is None:
        return smallest([scores], count, transform=transform)[0].logical_not_()
    dead = alive.numel() - int(alive.count_nonzero())
    chosen = smallest([scores], max(0, count - dead), among=[alive], transform=transform)[0]
    return alive & ~chosen


class NormalSparsityAllocator(SparsityAllocator):
    """Prunes the smallest scores of each module, exactly as many as its sparsity asks for."""

    def generate_sparsity(self, metrics: Mapping[str, Tensor]) -> Masks:
        """Return the masks, module by module."""
        wrappers = self.pruner.get_modules_wrapper()
        # A call on a few scores costs more than its work, so layers that are alike share one.
        alike: dict[tuple[int, torch.Size, torch.dtype, torch.device], list[str]]
        alike = defaultdict(list)
        kept = {}
        for name, wrapper in wrappers.items():
            scores, alive = metrics[name], self._alive(name)
            count = number_to_prune(wrapper.config["sparsity"], scores.numel())
            if alive is None and self.transform is None and scores.numel() <= FEW:
                alike[count, scores.shape, scores.dtype, scores.device].append(name)
            else:
                check_scores(name, scores)
                kept[name] = keep_mask(scores, count, alive, self.transform)
        for (count, *_), names in alike.items():
            rows = torch.stack([metrics[name] for name in names])
            if not bool(rows.isfinite().all()):
                for name in names:
                    check_scores(name, metrics[name])
            masks = keep_in_rows(rows.flatten(1), count).view(rows.shape)
            kept.update(zip(names, masks, strict=True))
        return {name: self._expand_mask(name, kept[name]) for name in wrappers}


class BankSparsityAllocator(SparsityAllocator):
    """Prunes the smallest scores of each block of a weight, so that all blocks lose equally.

    Args:
        pruner: The pruner.
        balance_gran: The shape of a block; it is matched to the last axes of the weight.
        continuous_mask: Whether what is masked stays masked.
    """

    def __init__(
        self, pruner: Pruner, balance_gran: Sequence[int], continuous_mask: bool = True
    ) -> None:
        super().__init__(pruner, continuous_mask=continuous_mask)
        if not (
            isinstance(balance_gran, Sequence)
            and balance_gran
            and all(isinstance(size, int) and size > 0 for size in balance_gran)
        ):
            raise ConfigError(
                f"balance_gran is {balance_gran!r}; it must be a list of whole numbers of at "
                "least 1."
            )
        self.balance_gran = list(balance_gran)

    def parts(self, wrapper: PrunerModuleWrapper) -> int:
        """Return the size of a block: all blocks lose their n-th value together."""
        return prod(self.balance_gran)

    def generate_sparsity(self, metrics: Mapping[str, Tensor]) -> Masks:
        """Return the masks, module by module."""
        masks = {}
        for name, wrapper in self.pruner.get_modules_wrapper().items():
            scores = metrics[name].abs()
            check_scores(name, scores)
            alive = self._alive(name)
            if alive is not None:
                scores = scores.masked_fill(~alive, -1.0)
            blocks, restore = _blocks(name, scores, self.balance_gran)
            count = number_to_prune(wrapper.config["sparsity"], blocks.shape[-1])
            mask = keep_in_rows(blocks, count)
            mask = restore(mask)
            masks[name] = self._expand_mask(name, mask if alive is None else mask & alive)
        return masks


class NMSparsityAllocator(SparsityAllocator):
    """Keeps the n largest of each m scores along one axis, as sparse tensor cores want it.

    Args:
        pruner: The pruner.
        n: How many are kept.
        m: Of how many.
        dim: The axis of the weight along which groups of m lie, the input unless given.
    """

    def __init__(self, pruner: Pruner, n: int, m: int, dim: int | None = None) -> None:
        super().__init__(pruner, continuous_mask=False)
        if not (isinstance(n, int) and isinstance(m, int) and 0 < n < m):
            raise ConfigError(
                f"n is {n!r} and m is {m!r}; n of m means whole numbers with 0 < n < m."
            )
        self.n, self.m, self.group_axis = n, m, dim

    def generate_sparsity(self, metrics: Mapping[str, Tensor]) -> Masks:
        """Return the masks, module by module."""
        masks = {}
        for name, wrapper in self.pruner.get_modules_wrapper().items():
            scores = metrics[name].abs()
            check_scores(name, scores)
            axis = _group_axis(wrapper, self.m, self.group_axis)
            last = scores.movedim(axis, -1)
            grouped = last.reshape(*last.shape[:-1], -1, self.m)
            mask = keep_in_rows(grouped, self.m - self.n)
            mask = mask.flatten(-2).movedim(-1, axis)
            masks[name] = self._expand_mask(name, mask.contiguous())
        return masks


def _group_axis(wrapper: PrunerModuleWrapper, m: int, dim: int | None) -> int:
    """Return the axis of a weight along which groups of m lie, the input's unless given."""
    shape = wrapper.parameter(wrapper.target).shape
    axis = 1 - output_axis(wrapper.module) if dim is None else dim
    if len(shape) <= axis or shape[axis] % m:
        raise ConfigError(
            f"The weight of {wrapper.name!r} has the shape {tuple(shape)}; its axis {axis} cannot "
            f"be cut into groups of {m}. Exclude it."
        )
    return axis


def check_n_of_m(pruner: Pruner, n: int, m: int, dim: int | None = None) -> None:
    """Refuse ratios other than the one that n of m leaves, and weights that have no groups of m.

    Args:
        pruner: The pruner with its rules.
        n: How many stay.
        m: Of how many.
        dim: The axis along which the groups lie.

    Raises:
        ConfigError: A module is to lose more or less, or cannot be cut into groups.
    """
    possible = 1 - n / m
    for name, wrapper in pruner.get_modules_wrapper().items():
        _group_axis(wrapper, m, dim)
        asked = wrapper.config["sparsity"]
        if abs(asked - possible) > 1e-6:
            raise ConfigError(
                f"{name!r} is to lose {asked} of its weights, and keeping {n} of every {m} prunes "
                f"{possible}. Write that as its sparsity, or choose another n and m."
            )


def keep_in_rows(scores: Tensor, count: int) -> Tensor:
    """Return a mask without the `count` smallest of each row; of equal ones the first go.

    Args:
        scores: A matrix of scores.
        count: How many of each row go.
    """
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = _kth_smallest(count, scores)
    mask = scores > threshold
    left = scores.shape[-1] - count
    if int(mask.count_nonzero()) < left * (scores.numel() // scores.shape[-1]):
        equal = scores == threshold
        from_the_end = equal.flip(-1).cumsum(-1).flip(-1)
        mask |= equal & (from_the_end <= left - mask.sum(-1, keepdim=True))
    return mask


def _kth_smallest(k: int, rows: Tensor) -> Tensor:
    """Return the k-th smallest number of each row, counted from 1."""
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64):
        # Ten times as fast as kthvalue.
        ordered = np.partition(rows.detach().numpy(), k - 1, axis=-1)
        return torch.from_numpy(ordered[..., k - 1 : k].copy())
    return rows.kthvalue(k, dim=-1, keepdim=True).values


def _blocks(
    name: str, scores: Tensor, sizes: list[int]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Gather blocks into rows, and return how to put rows back."""
    full = [1] * (scores.ndim - len(sizes)) + sizes
    if len(full) != scores.ndim or any(n % s for n, s in zip(scores.shape, full, strict=True)):
        raise ConfigError(
            f"The weight of {name!r} has the shape {tuple(scores.shape)}, which cannot be cut "
            f"into blocks of {sizes}."
        )
    split = [x for n, s in zip(scores.shape, full, strict=True) for x in (n // s, s)]
    order = [*range(0, 2 * scores.ndim, 2), *range(1, 2 * scores.ndim, 2)]
    spread = scores.reshape(split).permute(order)
    back = [order.index(i) for i in range(len(order))]

    def restore(rows: Tensor) -> Tensor:
        return rows.reshape(spread.shape).permute(back).reshape(scores.shape)

    return spread.flatten(scores.ndim), restore

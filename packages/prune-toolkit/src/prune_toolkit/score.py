"""The second step of a basic pruner: from data to scores. The smallest score is pruned first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prune_core.errors import ConfigError
from prune_toolkit.calibration.precision import counting_type, wide

__all__ = [
    "DistMetricsCalculator",
    "MetricsCalculator",
    "NormMetricsCalculator",
    "StraightMetricsCalculator",
    "as_list",
    "check_blocks",
]


def as_list(value: int | Sequence[int] | None) -> list[int] | None:
    """Let one number stand for a list of one.

    Args:
        value: A number, a list, or None.
    """
    if value is None:
        return None
    return [value] if isinstance(value, int) else list(value)


def check_blocks(dim: list[int] | None, block_sparse_size: list[int] | None) -> None:
    """Refuse axes and block sizes that do not go together.

    Args:
        dim: The axes that scores keep.
        block_sparse_size: The size of a block along each of them.
    """
    if dim is not None and any(axis < 0 for axis in dim):
        raise ConfigError(f"dim is {dim}; axes are counted from 0, so none may be negative.")
    if block_sparse_size is None:
        return
    if any(size < 1 for size in block_sparse_size):
        raise ConfigError(f"block_sparse_size is {block_sparse_size}; sizes are at least 1.")
    if dim is not None and len(dim) != len(block_sparse_size):
        raise ConfigError(
            f"dim is {dim} and block_sparse_size is {block_sparse_size}; both must be equally long."
        )


class MetricsCalculator(ABC):
    """Computes scores from collected data.

    Args:
        dim: The axes of the data that the scores keep, or None for all.
        block_sparse_size: The sizes of the blocks that get one score each, one for each axis kept.
    """

    def __init__(
        self,
        dim: int | Sequence[int] | None = None,
        block_sparse_size: int | Sequence[int] | None = None,
    ) -> None:
        self.dim = as_list(dim)
        self.block_sparse_size = as_list(block_sparse_size)
        check_blocks(self.dim, self.block_sparse_size)

    @abstractmethod
    def calculate_metrics(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `{module name: scores}`.

        Args:
            data: One tensor for each module.
        """

    def reduced_axes(self, data: Tensor) -> list[int]:
        """Return the axes that the scores do not keep.

        Args:
            data: The tensor of a module.
        """
        return [] if self.dim is None else [a for a in range(data.ndim) if a not in self.dim]


class StraightMetricsCalculator(MetricsCalculator):
    """Takes the data for the scores.

    Args:
        copy: Whether to copy it, so that an allocator may write into the scores.
    """

    def __init__(self, copy: bool = True) -> None:
        super().__init__()
        self.copy = copy

    def calculate_metrics(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the data, or copies."""
        return {name: tensor.clone() if self.copy else tensor for name, tensor in data.items()}


_PIECE = 1 << 20


class NormMetricsCalculator(MetricsCalculator):
    """Scores by a p-norm over the axes that are not kept; by the absolute value if all are.

    Args:
        dim: The axes that the scores keep.
        p: The norm, 2 unless given.
        block_sparse_size: Sizes of blocks, one for each axis kept.
    """

    def __init__(
        self,
        dim: int | Sequence[int] | None = None,
        p: float | None = None,
        block_sparse_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(dim, block_sparse_size)
        self.p = 2.0 if p is None else float(p)

    def calculate_metrics(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the norms, in float32 for the half-precision types."""
        room: dict[torch.dtype, Tensor] = {}
        return {name: self._norm(tensor, room) for name, tensor in data.items()}

    def _norm(self, tensor: Tensor, room: dict[torch.dtype, Tensor]) -> Tensor:
        kept = list(range(tensor.ndim)) if self.dim is None else self.dim
        over = self.reduced_axes(tensor)
        whole = tuple(tensor.shape)
        if any(axis >= tensor.ndim for axis in kept):
            raise ConfigError(f"dim is {kept}, and a tensor of shape {whole} has fewer axes.")
        for axis, size in zip(kept, self.block_sparse_size or (), strict=False):
            if whole[axis] % size:
                raise ConfigError(
                    f"A tensor of shape {whole} cannot be cut into blocks of {size} "
                    f"along axis {axis}."
                )
            tensor = tensor.unfold(axis, size, size)
            over.append(tensor.ndim - 1)
        if not over:
            return tensor.abs()
        dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        if self.p == 1.0:
            return _absolute_sum(tensor, over, dtype, room)
        norm: Tensor = torch.linalg.vector_norm(tensor, self.p, dim=over, dtype=dtype)
        return norm


def _absolute_sum(
    tensor: Tensor, over: list[int], dtype: torch.dtype, room: dict[torch.dtype, Tensor]
) -> Tensor:
    """Return the 1-norm by way of absolute values, for which processors have faster code."""
    if 0 in over or tensor.numel() <= _PIECE or tensor.device.type != "cpu":
        return tensor.abs().sum(dim=over, dtype=dtype)
    # In pieces, so that no large layer is in memory twice.
    rows = max(1, _PIECE * len(tensor) // tensor.numel())
    pieces = torch.split(tensor, rows)
    if not tensor.is_contiguous():
        return torch.cat([piece.abs().sum(dim=over, dtype=dtype) for piece in pieces])
    # One behind the other in the same place: what comes and goes between results leaves holes.
    size = pieces[0].numel()
    if dtype not in room or len(room[dtype]) < size:
        room[dtype] = torch.empty(size, dtype=dtype, device=tensor.device)
    sums = [
        room[dtype][: piece.numel()].view(piece.shape).copy_(piece).abs_().sum(dim=over)
        for piece in pieces
    ]
    return torch.cat(sums)


class DistMetricsCalculator(MetricsCalculator):
    """Scores a slice by the sum of its distances to all other slices.

    Args:
        p: The norm that measures a distance.
        dim: The axis whose slices are compared.
    """

    def __init__(self, p: float = 2.0, dim: int | Sequence[int] = 0) -> None:
        super().__init__(dim)
        self.p = float(p)

    def calculate_metrics(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums of distances; a slice that others resemble gets a small one."""
        scores = {}
        for name, tensor in data.items():
            kept = self.dim or [0]
            shape = [tensor.shape[axis] for axis in kept]
            rows = tensor.movedim(kept, list(range(len(kept)))).reshape(
                torch.Size(shape).numel(), -1
            )
            sums = _sums_by_product(rows) if self.p == 2.0 else _sums_exactly(rows, rows, self.p)
            scores[name] = sums.reshape(shape)
        return scores


_TIE = 1e-9
"""Sums that are relatively closer than this are told apart by an exact computation."""


def _sums_exactly(rows: Tensor, others: Tensor, p: float) -> Tensor:
    """Return for each row the sum of its distances to others, from differences."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(wide(rows), wide(others), p, compute_mode=exact).sum(1)


def _sums_by_product(rows: Tensor) -> Tensor:
    """Return for each row the sum of its distances to all rows, by way of a matrix product.

    `‖a − b‖² = ‖a‖² + ‖b‖² − 2·a·b` is many times faster than differences, and loses the digits in
    which rows differ that are nearly alike. So the mean of all rows is taken off first, which
    leaves their distances what they are, all is computed in double precision, and sums that come
    out as good as equal, such as those of two copies of one filter, are computed again from
    differences.
    """
    counting = counting_type(rows.device)
    if counting != torch.float64:  # some devices have no double precision
        return _sums_exactly(rows, rows, 2.0)
    centred = rows.to(counting)
    centred = centred - centred.mean(0)
    square = (centred * centred).sum(1)
    distances = torch.addmm(square, centred, centred.T, alpha=-2).add_(square[:, None])
    distances.fill_diagonal_(0)
    sums = distances.clamp_(min=0).sqrt_().sum(1)
    order = sums.argsort()
    ranked = sums[order]
    close = ranked.diff() <= _TIE * ranked[1:].abs()
    tied = torch.zeros_like(sums, dtype=torch.bool)
    tied[order[1:][close]] = True
    tied[order[:-1][close]] = True
    if bool(tied.any()):
        sums[tied] = _sums_exactly(centred[tied], centred, 2.0)
    return sums

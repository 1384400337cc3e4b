"""Rounding to very few bits: what DoReFa and BNN do with weights, inputs and outputs.

Their grids have no zero. A weight that is exactly zero was pruned, so it stays zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prune_quant.rounding.fake import FakeQuantizer
from prune_quant.rounding.grid import Grid, on_grid, straight_through, unsigned

__all__ = ["ClippedActivation", "SignActivation", "SignWeight", "TanhWeight"]


def _sign(x: Tensor) -> Tensor:
    """Return -1 below zero and 1 from zero on; gradients pass between -1 and 1."""
    return straight_through(x.clamp(-1, 1), torch.where(x < 0, -1.0, 1.0).to(x.dtype))


def _zeros_kept(x: Tensor, rounded: Tensor) -> Tensor:
    return torch.where(x == 0, torch.zeros_like(rounded), rounded)


def _fraction(x: Tensor, bits: int) -> Tensor:
    """Return numbers between 0 and 1, rounded to multiples of 1 / (2^bits - 1)."""
    low, high = unsigned(bits)
    return on_grid(x, x.new_tensor(1 / high, dtype=torch.float32), x.new_zeros(()), low, high)


class _Fixed(FakeQuantizer):
    """A grid that is the same for all data."""

    def __init__(self, bits: int, grid: Grid, step: float) -> None:
        super().__init__(bits, grid)
        self.scale.fill_(step)
        self.seen = True


class TanhWeight(_Fixed):
    """DoReFa: `2 · round_k(tanh(w) / (2 · max|tanh(w)|) + 1/2) - 1`."""

    def __init__(self, bits: int) -> None:
        high = 2**bits - 1
        super().__init__(bits, Grid(-high, high), 1 / high)

    def rounded(self, x: Tensor) -> Tensor:
        """Return the weight between -1 and 1; of one bit, its sign times the mean magnitude."""
        if self.bits == 1:
            kept = (x != 0).sum().clamp(min=1)
            return _zeros_kept(x, _sign(x) * (x.detach().abs().sum() / kept))
        squeezed = x.tanh()
        largest = squeezed.detach().abs().amax().clamp(min=torch.finfo(x.dtype).tiny)
        return _zeros_kept(x, 2 * _fraction(squeezed / (2 * largest) + 0.5, self.bits) - 1)


class ClippedActivation(_Fixed):
    """DoReFa: inputs and outputs held between 0 and 1, in steps of `1 / (2^k - 1)`."""

    def __init__(self, bits: int) -> None:
        grid = unsigned(bits)
        super().__init__(bits, grid, 1 / grid.high)


class SignWeight(_Fixed):
    """BNN: the sign of a weight; gradients pass between -1 and 1."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits, Grid(-1, 1), 1.0)

    def rounded(self, x: Tensor) -> Tensor:
        """Return -1, 1, or zero for what was pruned."""
        return _zeros_kept(x, _sign(x))


class SignActivation(_Fixed):
    """BNN: the sign of an input or output; gradients pass between -1 and 1."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits, Grid(-1, 1), 1.0)

    def rounded(self, x: Tensor) -> Tensor:
        """Return -1 or 1."""
        return _sign(x)

"""Integers that stand for numbers, and rounding to them in a way that can be trained through.

A grid of b bits has a step (the scale) and a place for zero (the zero point). The integer q stands
for the number `scale * (q - zero_point)`. Symmetric weights of 8 bits and a step of 0.1:

    0.26  ->  round(2.6) = 3   ->  0.3
    0     ->  0                ->  0
    99    ->  990, held at 127 ->  12.7

Zero is on every grid here, so a pruned weight is still zero afterwards.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Grid",
    "affine",
    "integers",
    "on_grid",
    "signed",
    "straight_through",
    "symmetric_scale",
    "unsigned",
]


class Grid(NamedTuple):
    """The integers that are there, both ends included."""

    low: int
    high: int


def signed(bits: int) -> Grid:
    """Return as many integers below zero as above: -127 to 127 for 8 bits."""
    high = 2 ** (bits - 1) - 1
    return Grid(-high, high)


def unsigned(bits: int) -> Grid:
    """Return the integers from zero: 0 to 255 for 8 bits."""
    return Grid(0, 2**bits - 1)


def symmetric_scale(x: Tensor, high: int, axis: int | None) -> Tensor:
    """Return the step with which the largest magnitude is just on the grid.

    Args:
        x: The numbers.
        high: The largest integer.
        axis: The axis along which each slice has a step of its own, or None for one step.
    """
    magnitude = x.detach().abs().float()
    if axis is None:
        largest = magnitude.amax()
    else:
        largest = magnitude.amax(dim=[a for a in range(x.ndim) if a != axis % x.ndim])
    return _usable(largest / high)


def _usable(step: Tensor) -> Tensor:
    """Return 1 for a step that is zero, or too small to divide by: with it, all becomes zero."""
    return torch.where(step > torch.finfo(step.dtype).tiny, step, torch.ones_like(step))


def affine(low: Tensor, high: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the step and the zero point of a range, which is widened to hold zero.

    >>> step, zero = affine(torch.tensor(-1.0), torch.tensor(4.1), unsigned(8))
    >>> round(float(step), 4), int(zero)
    (0.02, 50)
    """
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    step = (high - low) / (grid.high - grid.low)
    step = _usable(step)
    zero = (grid.low - low / step).round().clamp(grid.low, grid.high)
    return step, zero


class _StraightThrough(torch.autograd.Function):
    """Gives one tensor forward, and its gradient to another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """Return `value`, and hand the gradient on to x as if that had been returned."""
    if not x.requires_grad:
        return value
    through: Tensor = _StraightThrough.apply(x, value.detach())  # type: ignore[no-untyped-call]
    return through


def integers(
    x: Tensor, scale: Tensor, zero_point: Tensor, low: Tensor | int, high: Tensor | int
) -> Tensor:
    """Return the integers that stand for x, as floating-point numbers."""
    # A product, as in torch's own operators for integers: x / scale may round the other way, and in
    # a deep model one value that does moves many behind it.
    steps = x.float() * (1 / scale)
    return (straight_through(steps, steps.round()) + zero_point).clamp(low, high)  # type: ignore[arg-type]


def on_grid(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    low: Tensor | int,
    high: Tensor | int,
    axis: int | None = None,
) -> Tensor:
    """Return x rounded to a grid.

    Gradients reach x where it is within the range, as if nothing had been rounded. They reach
    `scale` too, where it is learned: by the rounding error within the range, and by the end of the
    range beyond it, as LSQ has it.

    >>> x, step, zero = torch.tensor([0.26, 0, 99]), torch.tensor(0.1), torch.tensor(0.0)
    >>> [round(float(each), 4) for each in on_grid(x, step, zero, -127, 127)]
    [0.3, 0.0, 12.7]
    """
    if axis is not None and scale.ndim:
        shape = [-1 if a == axis % x.ndim else 1 for a in range(x.ndim)]
        scale, zero_point = scale.view(shape), zero_point.expand(scale.shape).reshape(shape)
    return ((integers(x, scale, zero_point, low, high) - zero_point) * scale).to(x.dtype)

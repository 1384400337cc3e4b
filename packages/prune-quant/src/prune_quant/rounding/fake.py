"""Fake quantisation: a tensor keeps its type, and holds only values that integers stand for.

One class rounds; those that derive from it differ in where the step comes from. An algorithm is the
choice of one of them for weights and one for inputs and outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prune_quant.rounding.grid import Grid, affine, on_grid, signed, symmetric_scale, unsigned
from prune_quant.schemes.torchao import torchao

__all__ = ["FakeQuantizer", "LearnedStep", "MovingRange", "ObservedRange", "OwnRange"]


class FakeQuantizer(nn.Module):
    """Rounds what goes through it to a grid, once it is active and knows its step.

    Args:
        bits: How many bits an integer has.
        grid: The integers.
        axis: The axis along which each slice of a weight has a step of its own; None for one step.

    Attributes:
        active: Whether it rounds.
        seen: Whether it knows its step.
    """

    scale: Tensor
    zero_point: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, bits: int, grid: Grid, axis: int | None = None) -> None:
        super().__init__()
        self.bits, self.axis = bits, axis
        self.active = self.seen = False
        self._make_scale()
        self.register_buffer("zero_point", torch.tensor(0.0))
        self.register_buffer("low", torch.tensor(float(grid.low)))
        self.register_buffer("high", torch.tensor(float(grid.high)))

    def _make_scale(self) -> None:
        self.register_buffer("scale", torch.tensor(0.0))

    @property
    def grid(self) -> Grid:
        """The integers that are there."""
        return Grid(int(self.low), int(self.high))

    def forward(self, x: Tensor) -> Tensor:
        """Return x on the grid."""
        self.look(x)
        return self.rounded(x) if self.active and self.seen else x

    def look(self, x: Tensor) -> None:
        """Learn the step from what comes through.

        Args:
            x: The tensor that comes through.
        """

    def rounded(self, x: Tensor) -> Tensor:
        """Return x on the grid, whether active or not.

        Args:
            x: The tensor to round.
        """
        return on_grid(x, self.scale, self.zero_point, self.low, self.high, self.axis)

    @property
    def range(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest number of the grid."""
        low, high = ((end - self.zero_point) * self.scale for end in (self.low, self.high))
        return low.detach(), high.detach()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # How many steps there are is known only when the first tensor has come through.
        for name in ("scale", "zero_point"):
            saved = state_dict.get(prefix + name)
            held = getattr(self, name)
            if isinstance(saved, Tensor) and saved.shape != held.shape:
                held.data = torch.zeros(saved.shape, dtype=held.dtype, device=held.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.seen = bool((self.scale != 0).all())

    def extra_repr(self) -> str:
        """Say what it does, for `print(model)`."""
        steps = f", one step for each slice of axis {self.axis}" if self.axis is not None else ""
        state = "" if self.active else ", not active"
        return f"bits={self.bits}, integers {self.grid.low} to {self.grid.high}{steps}{state}"


class OwnRange(FakeQuantizer):
    """Takes the step from the largest magnitude of the tensor itself, each time: for weights."""

    def __init__(self, bits: int, axis: int | None = None) -> None:
        super().__init__(bits, signed(bits), axis)

    def look(self, x: Tensor) -> None:
        """Measure the tensor."""
        self.scale = symmetric_scale(x, signed(self.bits).high, self.axis)
        self.seen = True


class MovingRange(FakeQuantizer):
    """Follows the range of what comes through in training: for inputs and outputs.

    `range <- 0.99 * range + 0.01 * range of this batch`, and the first batch as it is.
    """

    DECAY = 0.99

    smallest: Tensor
    largest: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits, unsigned(bits))
        self.register_buffer("smallest", torch.tensor(0.0))
        self.register_buffer("largest", torch.tensor(0.0))

    @torch.no_grad()
    def look(self, x: Tensor) -> None:
        """Move the range a little, in training."""
        if not self.training or not x.numel():
            return
        low, high = x.detach().float().aminmax()
        if self.seen:
            low = self.smallest.lerp(low, 1 - self.DECAY)
            high = self.largest.lerp(high, 1 - self.DECAY)
        self.smallest, self.largest = low, high
        self.scale, self.zero_point = affine(low, high, unsigned(self.bits))
        self.seen = True


class ObservedRange(FakeQuantizer):
    """Counts what comes through before `compress()`, and takes the range that rounds it best.

    The histogram is torchao's; its range gives the least squared error, so that a few large values
    do not cost all others their precision.
    """

    def __init__(self, bits: int) -> None:
        super().__init__(bits, unsigned(bits))
        self.histogram: Any = None

    def look(self, x: Tensor) -> None:
        """Count, until `compress()` has made it active."""
        if self.active or not x.numel():
            return
        if self.histogram is None:
            pt2e = torchao("quantization.pt2e")
            self.histogram = pt2e.HistogramObserver(
                dtype=torch.uint8, quant_min=0, quant_max=unsigned(self.bits).high
            ).to(x.device)
        self.histogram(x.detach().float())

    def settle(self) -> None:
        """Take the range from what was counted."""
        if self.histogram is not None:
            scale, zero_point = self.histogram.calculate_qparams()
            self.scale, self.zero_point = scale[0].float(), zero_point[0].float()
            self.histogram, self.seen = None, True


class LearnedStep(FakeQuantizer):
    """Trains the step with the model, by gradients: LSQ.

    Weights are signed, inputs and outputs unsigned if the first batch has nothing below zero.
    """

    scale: nn.Parameter

    def __init__(self, bits: int, *, weight: bool) -> None:
        super().__init__(bits, Grid(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
        self.weight = weight

    def _make_scale(self) -> None:
        self.scale = nn.Parameter(torch.tensor(0.0))

    @torch.no_grad()
    def look(self, x: Tensor) -> None:
        """Begin with the step of the paper, 2·mean|x| / √high, over what is not pruned."""
        if self.seen or not x.numel() or not (self.weight or self.training):
            return
        if not self.weight and bool((x >= 0).all()):
            self.low, self.high = (torch.full_like(self.low, end) for end in unsigned(self.bits))
        kept = x.detach().float()[x != 0].abs()
        mean = kept.mean() if kept.numel() else torch.ones_like(self.scale)
        self.scale.copy_(2 * mean / self.high.sqrt())
        self.seen = True

    def rounded(self, x: Tensor) -> Tensor:
        """Return x on the grid, the gradient of the step scaled to the number of values."""
        count = x.numel() if self.weight else x[0].numel()
        share = (count * self.high).rsqrt()
        step = self.scale.abs().clamp(min=torch.finfo(torch.float32).tiny)
        step = (step * (1 - share)).detach() + step * share
        return on_grid(x, step, self.zero_point, self.low, self.high)

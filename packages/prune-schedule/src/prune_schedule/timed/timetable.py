"""When sparsity changes, and what it is at any time: arithmetic without a framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prune_schedule.timed.curve import Curve, value

__all__ = ["Timetable", "Unit"]

Unit = Literal["epoch", "step", "round"]


@dataclass(frozen=True, slots=True)
class Timetable:
    """How the sparsity of one entry of a `config_list` grows.

    Masks change at `start`, `start + frequency`, `start + 2 · frequency` … as long as that is
    before `end`; the last of these points has the final sparsity.

    Attributes:
        initial: Sparsity at the first point.
        final: Sparsity at the last point.
        start: The first point.
        end: What no point reaches: ten epochs from 0 are 0 to 9, and their end is 10.
        frequency: The distance of two points.
        unit: What time is measured in.

    Example:
        >>> from prune_core.curves import linear
        >>> growth = Timetable(0.0, 0.75, start=0, end=10, frequency=3, unit="epoch")
        >>> [growth.sparsity(epoch, linear) for epoch in range(11)]
        [0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 0.75]
    """

    initial: float
    final: float
    start: int
    end: int
    frequency: int = 1
    unit: Unit = "round"

    @property
    def last(self) -> int:
        """The point that has the final sparsity."""
        return self.start + max(0, (self.end - self.start - 1) // self.frequency) * self.frequency

    def sparsity(self, now: int, curve: Curve) -> float:
        """Return the sparsity of the latest point that is not after `now`."""
        if now < self.start:
            return 0.0
        gone = (now - self.start) // self.frequency * self.frequency
        span = self.last - self.start
        progress = min(1.0, gone / span) if span else 1.0
        return value(curve, progress, self.initial, self.final)

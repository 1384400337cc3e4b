"""When sparsity changes, and what it is at any time: arithmetic without a framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from prune_core.errors import ConfigError
from prune_core.registry import get_schedule

__all__ = ["Curve", "Timetable", "Unit", "as_curve", "name_of", "value"]

Curve = Callable[[float, float, float], float]
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


def as_curve(curve: str | Curve) -> Curve:
    """Return the function behind a registered name, or the function itself.

    Raises:
        UnknownNameError: When no plugin registers the name.
        ConfigError: When it is neither a name nor a function.
    """
    if isinstance(curve, str):
        found: Curve = get_schedule(curve)
        return found
    if not callable(curve):
        raise ConfigError(
            f"curve is {curve!r}; it must be the name of a registered schedule, such as 'cubic', "
            "or a function of (progress, initial, final) that returns a sparsity."
        )
    return curve


def name_of(curve: str | Curve) -> str:
    """Return the name of a curve in messages and checkpoints."""
    return curve if isinstance(curve, str) else getattr(curve, "__qualname__", repr(curve))


def value(curve: Curve, progress: float, initial: float, final: float) -> float:
    """Return the sparsity at a progress between 0 and 1.

    At the end the final sparsity holds as the user wrote it, whatever the last sum rounds to.

    Raises:
        ConfigError: When the curve returns something that is no sparsity.
    """
    sparsity: Any = curve(progress, initial, final)
    if not (isinstance(sparsity, Real) and -1e-9 <= float(sparsity) < 1.0):
        raise ConfigError(
            f"The curve {name_of(curve)!r} returned {sparsity!r} at progress {progress:g} (from "
            f"{initial:g} to {final:g}); a sparsity is at least 0 and less than 1."
        )
    if progress == 1.0 and abs(float(sparsity) - final) < 1e-9:
        return final
    return max(0.0, float(sparsity))

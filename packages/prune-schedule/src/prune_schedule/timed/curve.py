"""The curve of a schedule: a registered one by its name, or any function."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

from prune_core import ConfigError, get_schedule

__all__ = ["Curve", "as_curve", "name_of", "value"]

Curve = Callable[[float, float, float], float]


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

"""The function that a user gives to run a model on a calibration set, called for a part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from prune_core.errors import PruneError

__all__ = ["Calibrate", "Enough", "first_call", "limited"]

Calibrate = Callable[[nn.Module], Any]


class Enough(Exception):  # noqa: N818
    """Leaves the user's calibration, or a forward, when enough has been seen."""


def first_call(model: nn.Module, calibrate: Calibrate) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a calibration calls the model with first; the model does not run."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args, kwargs))
        raise Enough

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        calibrate(model)
    except Enough:
        pass
    finally:
        handle.remove()
    if not seen:
        raise PruneError("calibrate(model) never ran the model, so there is nothing to score.")
    return seen[0]


def limited(calibrate: Calibrate, batches: int | None) -> Calibrate:
    """Return a calibration that stops after so many calls of the model."""
    if batches is None:
        return calibrate

    def run(model: nn.Module) -> None:
        seen = 0

        def count(module: nn.Module, args: Any) -> None:
            nonlocal seen
            if seen == batches:
                raise Enough
            seen += 1

        handle = model.register_forward_pre_hook(count)
        try:
            calibrate(model)
        except Enough:
            pass
        finally:
            handle.remove()

    return run

"""A user's `evaluate`, which may fail without taking the run with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from inspect import signature
from math import isfinite
from typing import Any

from torch import nn

from prune_core import ConfigError, PruneWarning
from prune_core.errors import shown
from prune_schedule.rounds import intact
from prune_schedule.timeout import time_limit

__all__ = ["Evaluate", "Finetune", "check_callable", "check_evaluate", "score_of"]

Evaluate = Callable[[nn.Module], Any]
Finetune = Callable[[nn.Module], Any]


def check_callable(name: str, function: object, what: str) -> None:
    """Refuse what cannot be called, before anything has been done."""
    if function is not None and not callable(function):
        raise ConfigError(f"{name} is {function!r}; it must be a function that takes {what}.")


def check_evaluate(name: str, function: object) -> None:
    """Refuse what does not take a model alone; it would fail in every trial."""
    check_callable(name, function, "the model and returns its score")
    if not callable(function):
        return
    try:
        parameters = signature(function)
    except (TypeError, ValueError):
        return  # of a function written in C nothing is known
    try:
        parameters.bind(None)
    except TypeError:
        called = getattr(function, "__name__", type(function).__name__)
        raise ConfigError(
            f"{name} is {called}{parameters}; it is called with the model alone. Give what else it "
            f"needs beforehand: lambda model: {called}(model, ...)."
        ) from None


def score_of(
    evaluate: Evaluate, model: nn.Module, timeout: float | None = None
) -> tuple[float | None, str | None]:
    """Return the score of a model, or None and why there is none.

    Raises:
        ConfigError: What `evaluate` returned is no number; it will not be one next time either.
    """
    try:
        with intact(model), time_limit(timeout):
            returned: Any = evaluate(model)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        score = _number(returned)
        if isfinite(score):
            return score, None
        problem = f"the score is {score}"
    warnings.warn(f"evaluate failed: {problem}. The run goes on.", PruneWarning, stacklevel=3)
    return None, problem


def _number(returned: Any) -> float:
    try:
        return float(returned)
    except (TypeError, ValueError, RuntimeError):
        hint = " Does it lack a return?" if returned is None else ""
        raise ConfigError(
            f"evaluate(model) returned {shown(returned)}; it must return the score of the model, "
            f"one number.{hint}"
        ) from None

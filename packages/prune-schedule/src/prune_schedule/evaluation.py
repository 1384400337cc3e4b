"""A user's `evaluate`, which may fail without taking the run with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import isfinite
from typing import Any

from torch import nn

from prune_core import PruneWarning
from prune_schedule.rounds import intact
from prune_schedule.timeout import time_limit

__all__ = ["Evaluate", "Finetune", "score_of"]

Evaluate = Callable[[nn.Module], Any]
Finetune = Callable[[nn.Module], Any]


def score_of(
    evaluate: Evaluate, model: nn.Module, timeout: float | None = None
) -> tuple[float | None, str | None]:
    """Return the score of a model, or None and why there is none."""
    try:
        with intact(model), time_limit(timeout):
            score = float(evaluate(model))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if isfinite(score):
            return score, None
        problem = f"the score is {score}"
    warnings.warn(f"evaluate failed: {problem}. The run goes on.", PruneWarning, stacklevel=3)
    return None, problem

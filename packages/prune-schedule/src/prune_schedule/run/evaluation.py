"""Call a user's `evaluate`, whose failures do not end the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import nn

from prune_core import PruneWarning
from prune_core.scores import number_from
from prune_schedule.run.isolation import intact
from prune_schedule.run.timeout import call_within

__all__ = ["Evaluate", "Finetune", "Score", "score_of"]

Evaluate = Callable[[nn.Module], Any]
Finetune = Callable[[nn.Module], Any]


@dataclass(frozen=True, slots=True)
class Score:
    """The result of an evaluation.

    Attributes:
        value: The score, or None where there is none.
        problem: Why there is none.
        error: What was raised.
    """

    value: float | None
    problem: str | None = None
    error: Exception | None = None

    def warn(self) -> None:
        """Warn if there is no score, and say why."""
        if self.problem is not None:
            text = f"evaluate failed: {self.problem}. The run goes on."
            warnings.warn(text, PruneWarning, stacklevel=4)


def score_of(evaluate: Evaluate, model: nn.Module, timeout: float | None = None) -> Score:
    """Score a model."""
    try:
        with intact(model):
            value = number_from(call_within(timeout, lambda: evaluate(model)))
    except Exception as error:
        return Score(None, f"{type(error).__name__}: {error}", error)
    return Score(value) if isfinite(value) else Score(None, f"the score is {value}")

"""How a user's functions are called, and what they may return."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from torch import nn

from prune_core.callables import UserFunction
from prune_core.errors import ConfigError, PruneError
from prune_core.scores import number_from
from prune_lottery.round import Round

__all__ = ["Evaluate", "Train", "score_of", "trainer_of"]

Train = Callable[..., Any]
Evaluate = Callable[[nn.Module], float]


def trainer_of(train: Train, needs_steps: str | None) -> Callable[[nn.Module, Round], Any]:
    """Return a function of model and round, whichever of the two `train` requires.

    Args:
        train: `train(model)` or `train(model, this_round)`.
        needs_steps: The setting that cannot do without the latter, or None.
    """
    trainer = UserFunction(train, "train", ("model", "this_round"))
    if needs_steps is not None and "this_round" not in trainer.takes:
        raise ConfigError(
            f"{needs_steps} has to know where in a training it is; write "
            "`def train(model, this_round):`, without a default, and go through "
            "`for step in this_round.steps(total):`."
        )
    return trainer


def score_of(evaluate: Evaluate | None, model: nn.Module) -> float | None:
    """Call `evaluate` and check what it returns."""
    if evaluate is None:
        return None
    returned: Any = evaluate(model)
    try:
        score = number_from(returned)
    except TypeError as error:
        raise PruneError(
            f"{_name(evaluate)} returned a {type(returned).__name__}; it must return one number, "
            f"the larger the better, such as an accuracy ({error})."
        ) from None
    if not isfinite(score):
        raise PruneError(
            f"{_name(evaluate)} returned {score}, with which no round can be compared; return a "
            "low number, such as 0.0, where a network has failed."
        )
    return score


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', type(function).__name__)}()"

"""What AMC's agent is paid for a pruned model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

from prune_core.errors import ConfigError, did_you_mean

__all__ = ["REWARDS", "Outcome", "Reward", "as_reward"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an episode.

    Attributes:
        score: What `evaluate` returned; higher is better, also where it is to be minimised.
        perfect: The score of a model without a fault.
        flops: Floating-point operations that are left.
        parameters: Parameters that are left.
    """

    score: float
    perfect: float
    flops: int
    parameters: int

    @property
    def error(self) -> float:
        """How far the score is from perfect, as a part of it."""
        return (self.perfect - self.score) / abs(self.perfect or 1.0)


Reward = Callable[[Outcome], float]


def _score(outcome: Outcome) -> float:
    """Pay for the score alone; the budget is kept by what the agent may do."""
    return -outcome.error


def _score_and_flops(outcome: Outcome) -> float:
    """Pay `−error · ln(FLOPs)`: for a small model, as far as its score allows."""
    return -_fault(outcome) * log(max(2, outcome.flops))


def _score_and_parameters(outcome: Outcome) -> float:
    """Pay `−error · ln(parameters)`."""
    return -_fault(outcome) * log(max(2, outcome.parameters))


def _fault(outcome: Outcome) -> float:
    """Return the error, refusing one below 0, with which a larger model would be paid more."""
    if outcome.error < 0:
        raise ConfigError(
            f"A score of {abs(outcome.score):g} is better than perfect={abs(outcome.perfect):g}, "
            "the score of a perfect model, so the error would be negative: give "
            "perfect=100 for an accuracy in per cent, perfect=0 for a loss."
        )
    return outcome.error


REWARDS: dict[str, Reward] = {
    "acc_reward": _score,
    "acc_flops_reward": _score_and_flops,
    "acc_params_reward": _score_and_parameters,
}


def as_reward(reward: str | Reward) -> Reward:
    """Return the reward of this name, or the user's own."""
    if callable(reward):
        return reward
    if reward not in REWARDS:
        raise ConfigError(
            f"reward is {reward!r}; it must be one of {', '.join(REWARDS)}, or a function of an "
            f"Outcome.{did_you_mean(str(reward), REWARDS)}"
        )
    return REWARDS[reward]

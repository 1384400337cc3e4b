"""What trains and what scores a model, from functions or from an object that does both.

Whoever gives such an object gives it once: schedules find the training in it, and do not leave the
model untuned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prune_core.evaluators import holds_training, scoring_of, training_of
from prune_schedule.evaluation import Evaluate, Finetune, check_callable

__all__ = ["Functions", "functions_of"]


@dataclass(frozen=True, slots=True)
class Functions:
    """What a user gave to train and to score a model.

    Attributes:
        finetune: Takes the model and trains it, or None.
        evaluate: Takes the model and returns its score, or None.
        example_inputs: An input of the model that came with them, or None.
    """

    finetune: Finetune | None
    evaluate: Evaluate | None
    example_inputs: Any = None


def functions_of(finetune: Any, evaluator: Any) -> Functions:
    """Return a training and a score; an evaluator that trains does so unless something else does.

    Raises:
        ConfigError: When one of them cannot be called.
    """
    check_callable("finetuner", finetune, "the model and trains it")
    check_callable("evaluator", evaluator, "the model and returns its score")
    return Functions(
        finetune or training_of(evaluator),
        scoring_of(evaluator),
        getattr(evaluator, "dummy_input", None) if holds_training(evaluator) else None,
    )

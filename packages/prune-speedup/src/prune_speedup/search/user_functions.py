"""The functions that train and score a model, or an evaluator that does both.

Whoever gives such an object gives it once: schedules find the training in it, and do not leave the
model untuned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prune_core.callables import check_takes_model
from prune_core.evaluators import holds_training, scoring_of, training_of

__all__ = ["Functions", "OfModel", "functions_of"]

OfModel = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Functions:
    """The user's functions to train and to score a model.

    Attributes:
        finetune: Takes the model and trains it, or None.
        evaluate: Takes the model and returns its score, or None.
        example_inputs: An input of the model that came with them, or None.
    """

    finetune: OfModel | None
    evaluate: OfModel | None
    example_inputs: Any = None

    def or_example(self, example_inputs: Any) -> Any:
        """Return an input that was given by itself, or else the one that came with them."""
        return self.example_inputs if example_inputs is None else example_inputs


def functions_of(finetune: Any, evaluate: Any, *, alone: bool = True) -> Functions:
    """Return the functions to train and to score; an evaluator that trains is both.

    Args:
        finetune: Takes the model and trains it, or is such an evaluator; None was not given.
        evaluate: Takes the model and returns its score, or also trains; None was not given.
        alone: Whether they will be called with the model and nothing else.

    Raises:
        ConfigError: When one of them cannot be called, or requires more than the model.
    """
    check_takes_model("finetune", finetune, "the model and trains it", alone=alone)
    check_takes_model("evaluate", evaluate, "the model and returns its score", alone=alone)
    both = next(filter(holds_training, (finetune, evaluate)), None)
    scores = scoring_of(evaluate) or scoring_of(both)
    train = training_of(finetune) or finetune or training_of(evaluate)
    return Functions(train, scores, getattr(both, "dummy_input", None))

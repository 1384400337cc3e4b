"""What trains and what scores a model, from functions or from an object that does both.

NNI 2.9 and 2.10 had a `TorchEvaluator` for both. Whoever gives such an object gives it once:
schedules find the training in it, and do not leave the model untuned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from prune_schedule.evaluation import Evaluate, Finetune, check_callable

__all__ = ["Functions", "functions_of", "holds_training"]


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


def holds_training(evaluator: object) -> bool:
    """Whether an evaluator trains a model as well: `train(model, max_steps=…, max_epochs=…)`."""
    return (
        not isinstance(evaluator, nn.Module | type)
        and callable(evaluator)
        and callable(getattr(evaluator, "train", None))
    )


def functions_of(finetune: Any, evaluator: Any) -> Functions:
    """Return a training and a score; an evaluator that trains does so unless something else does.

    Raises:
        ConfigError: When one of them cannot be called.
    """
    check_callable("finetuner", finetune, "the model and trains it")
    check_callable("evaluator", evaluator, "the model and returns its score")
    if not holds_training(evaluator):
        return Functions(finetune, evaluator)
    # An evaluator may have been made without a function that scores.
    scores = getattr(evaluator, "evaluating_func", evaluator) is not None
    return Functions(
        finetune or getattr(evaluator, "finetune", evaluator.train),
        evaluator.__call__ if scores else None,  # the function alone, which trains nothing
        getattr(evaluator, "dummy_input", None),
    )

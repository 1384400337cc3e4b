"""What objects that train models are, by what they can do: evaluators and optimizers.

An evaluator trains a model and scores it, as NNI 2.9 and 2.10 wanted one.
`prune_filter.TorchEvaluator` is one; any object will do that can be called with a model to score it
and has `train(model, max_steps, max_epochs)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Evaluator", "holds_training", "looks_like_optimizer", "scoring_of", "training_of"]


class Evaluator(Protocol):
    """What trains a model and scores it."""

    def train(
        self, model: Any, max_steps: int | None = None, max_epochs: int | None = None
    ) -> object:
        """Train a model, for so many steps or epochs if they are given."""

    def __call__(self, model: Any) -> Any:
        """Return the score of a model."""


def holds_training(evaluator: object) -> bool:
    """Whether an evaluator trains as well: not a function that scores, and not a model."""
    return (
        not isinstance(evaluator, type)
        and callable(evaluator)
        and callable(getattr(evaluator, "train", None))
        and not hasattr(evaluator, "forward")
    )


def training_of(evaluator: Any) -> Callable[[Any], Any] | None:
    """Return the function that trains a model as long as the evaluator does by itself."""
    if not holds_training(evaluator):
        return None
    train: Callable[[Any], Any] = getattr(evaluator, "finetune", evaluator.train)
    return train


def scoring_of(evaluator: Any) -> Callable[[Any], Any] | None:
    """Return the function that scores a model, and trains nothing."""
    if not holds_training(evaluator):
        plain: Callable[[Any], Any] | None = evaluator
        return plain
    # It may have been made without one.
    if getattr(evaluator, "evaluating_func", evaluator) is None:
        return None
    scores: Callable[[Any], Any] = evaluator.__call__
    return scores


def looks_like_optimizer(value: object) -> bool:
    """Whether a value is an optimizer, or something that wraps one: neither a model nor a class."""
    return (
        not isinstance(value, type)
        and not hasattr(value, "forward")
        and callable(getattr(value, "step", None))
        and callable(getattr(value, "zero_grad", None))
    )

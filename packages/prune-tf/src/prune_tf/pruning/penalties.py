"""Penalties on the weights of a model, in force while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

__all__ = ["penalised"]

Penalty = Callable[[Any], Any]


@contextmanager
def penalised(
    model: keras.Model, penalties: Sequence[tuple[keras.Variable, Penalty]]
) -> Iterator[None]:
    """Add penalties to the losses of a model for a while.

    They come beside what regularizes a variable already, and reach every loop that adds
    `model.losses`, as `fit` does.

    Args:
        model: The model.
        penalties: Variables of it, and for each a function of its value that returns a number.
    """
    before = [variable.regularizer for variable, _ in penalties]
    for (variable, penalty), regularizer in zip(penalties, before, strict=True):
        variable.regularizer = _Both(penalty, regularizer)
    _compile_anew(model)
    try:
        yield
    finally:
        for (variable, _), regularizer in zip(penalties, before, strict=True):
            variable.regularizer = regularizer
        _compile_anew(model)


def _compile_anew(model: keras.Model) -> None:
    # A step that was compiled before has the losses of then.
    if getattr(model, "train_function", None) is not None:
        model.train_function = None


class _Both(keras.regularizers.Regularizer):  # type: ignore[misc]
    def __init__(self, penalty: Penalty, beside: Penalty | None) -> None:
        self.penalty, self.beside = penalty, beside

    def __call__(self, x: Any) -> Any:
        penalty = self.penalty(x)
        return penalty if self.beside is None else penalty + self.beside(x)

"""The numbers in variables, kept to be put back: of a model, and of its optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from prune_tf.arrays import array_of

__all__ = ["Kept", "of_optimizer"]

Array = np.ndarray[Any, Any]


class Kept:
    """The numbers that variables have now; masks are not among those of a model, and stay.

    Args:
        variables: The variables.
        values: Other numbers than they have now.

    Attributes:
        values: Their numbers.
    """

    def __init__(self, variables: Iterable[Any], values: Iterable[Array] | None = None) -> None:
        self._variables = list(variables)
        if values is None:
            values = [np.array(array_of(each)) for each in self._variables]
        self.values = list(values)

    def restore(self) -> None:
        """Put the numbers back."""
        for variable, value in zip(self._variables, self.values, strict=True):
            variable.assign(value)


def of_optimizer(model: keras.Model) -> list[Any]:
    """Return the variables of the optimizer of a compiled model, or none."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return []
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    return [*optimizer.variables]

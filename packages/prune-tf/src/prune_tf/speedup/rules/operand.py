"""What is given to an operation: tensors, variables of layers, arrays and numbers alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from prune_tf.speedup.analysis import Analysis, Flow

__all__ = ["Operand", "operand"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Operand:
    """One of several things that meet in an operation.

    Attributes:
        shape: Its shape; None where a size is open.
        parts: What is known, by axis. An axis that is not in here stays as it is.
        number: Its value, where it is one number.
    """

    shape: tuple[int | None, ...]
    parts: dict[int, Flow]
    number: float | None = None

    def spans(self, axis: int) -> bool:
        """Whether it has more than one place along an axis, counted from the end."""
        return len(self.shape) >= -axis and self.shape[axis] != 1


def operand(analysis: Analysis, given: Any) -> Operand:
    """Return what is known of something that an operation is given."""
    if isinstance(given, keras.KerasTensor):
        parts = {part.axis: part for part in analysis.flow(given).parts}
        return Operand(tuple(given.shape), parts)
    if isinstance(given, keras.Variable):
        return _variable(analysis, given)
    if isinstance(given, int | float):
        return Operand((), {}, float(given))
    shape = tuple(np.shape(given))
    if np.prod(shape) == 1:
        value = np.asarray(keras.ops.convert_to_numpy(given)).ravel()[0]
        return Operand(shape, {}, float(value) if np.isfinite(value) else None)
    return Operand(shape, {})


def _variable(analysis: Analysis, variable: Any) -> Operand:
    shape = tuple(variable.shape)
    if id(variable) not in analysis.owners:
        return Operand(shape, {})
    layer, attribute, name = analysis.owners[id(variable)]
    value = analysis.weights(layer, attribute)
    parts = {}
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        known = analysis.axes[id(layer)].get((name, axis))
        labels = analysis.labels.new(size) if known is None else known
        analysis.lies(layer, name, axis, labels)
        rows = np.moveaxis(value, axis, 0).reshape(size, -1)
        same = (rows == rows[:, :1]).all(axis=1)
        constants = np.where(same, rows[:, 0], np.nan).astype(np.float64)
        parts[axis - len(shape)] = Flow(labels, constants, axis - len(shape))
    return Operand(shape, parts)

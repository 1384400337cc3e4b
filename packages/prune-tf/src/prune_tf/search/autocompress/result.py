"""What came of all rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from prune_tf.masks import Masks

__all__ = ["Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of all rounds, or of those before a run was stopped.

    Attributes:
        model: The small model, a new object; without speedup the model itself, masked.
        masks: The masks in force on it: what could not be removed.
        score: What `evaluate` made of it.
        sparsities: The ratio of its weights that each layer has lost, removed or masked.
        history: The rounds: number, sparsity of all layers together and of each, score, seconds,
            and with a target what is left of each kind.
        complete: False when the run was stopped before its end.
    """

    model: keras.Model
    masks: Masks
    score: float
    sparsities: dict[str, float]
    history: list[dict[str, Any]]
    complete: bool

"""A pruner of Keras models under test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from prune_core.testing.subject import Subject
from prune_tf.inputs import run
from prune_tf.testing.toys import convolutional, make_batch

__all__ = ["KerasSubject", "subject"]


@dataclass(frozen=True)
class KerasSubject(Subject):
    """A pruner of Keras models."""

    architecture: Callable[[], keras.Model]

    def make_model(self) -> keras.Model:
        """Return a model, always with the same weights."""
        keras.utils.set_random_seed(0)
        return self.architecture()

    def output(self, model: keras.Model) -> np.ndarray[Any, Any]:
        """Return what a model computes at inference."""
        return run(model, make_batch(model)[0])[0]


def subject(
    pruner: Callable[..., Any],
    model: Callable[[], keras.Model] | None,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    sparsities: tuple[float, ...],
    granularity: str | None,
) -> KerasSubject:
    """Return what the checks are called with; the arguments are those of `check_pruner`."""
    return KerasSubject(pruner, config, arguments, sparsities, granularity, model or convolutional)

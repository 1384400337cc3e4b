"""The pruner under test, and how to make fresh ones of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from prune_tf.inputs import run
from prune_tf.testing.toys import convolutional, make_batch

__all__ = ["Subject", "subject"]


@dataclass(frozen=True)
class Subject:
    """The pruner under test, and how to make fresh ones of it.

    Attributes:
        pruner: The class, called with `(model, config_list, **arguments)`.
        make_model: Makes a model, always with the same weights.
        config: Further keys of each entry.
        arguments: Further arguments of the pruner.
        sparsities: What to try.
        granularity: What the class has to declare, if that is known.
    """

    pruner: Callable[..., Any]
    make_model: Callable[[], keras.Model]
    config: Mapping[str, Any]
    arguments: Mapping[str, Any]
    sparsities: tuple[float, ...]
    granularity: str | None

    @property
    def middle(self) -> float:
        """The sparsity for checks that need only one."""
        return sorted(self.sparsities)[len(self.sparsities) // 2]

    def prepare(
        self, *more: Mapping[str, Any], sparsity: float | None = None, **arguments: Any
    ) -> tuple[keras.Model, Any]:
        """Return a fresh model and a pruner on it, with more entries in its config."""
        model = self.make_model()
        amount = self.middle if sparsity is None else sparsity
        given = {**self.arguments, **arguments}
        return model, self.pruner(model, [self.entry(amount), *more], **given)

    def entry(self, sparsity: float) -> dict[str, Any]:
        """Return the entry of the config that selects what is pruned."""
        return {"sparsity": sparsity, **self.config}

    def compress(self, **prepared: Any) -> tuple[keras.Model, Any, Any]:
        """Return a fresh model, the pruner that pruned it, and the masks."""
        model, pruner = self.prepare(**prepared)
        _, masks = pruner.compress()
        return model, pruner, masks

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
) -> Subject:
    """Return what the checks are called with; the arguments are those of `check_pruner`."""

    def make_model() -> keras.Model:
        keras.utils.set_random_seed(0)
        return (model or convolutional)()

    return Subject(pruner, make_model, config, arguments, sparsities, granularity)

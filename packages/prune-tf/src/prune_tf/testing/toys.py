"""A network small enough for a unit test, and large enough to be pruned.

Its channel counts are unlike each other and rarely round, so that a swapped axis or a rounded
number of channels does not pass by luck.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

__all__ = ["convolutional", "make_batch"]


def convolutional() -> keras.Model:
    """Return two convolutions with batch normalisation, and a dense layer; ten scores come out."""
    norm = {
        "beta_initializer": "random_normal",
        "moving_mean_initializer": "random_normal",
    }
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(7, 3, padding="same", name="conv1"),
            layers.BatchNormalization(name="norm1", **norm),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, padding="same", use_bias=False, name="conv2"),
            layers.BatchNormalization(name="norm2", **norm),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, name="dense"),
        ],
        name="convolutional",
    )


def make_batch(model: keras.Model, size: int = 8) -> tuple[Any, Any]:
    """Return random inputs of a model with one input, and labels.

    Args:
        model: The model.
        size: How many samples.
    """
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(size, *model.inputs[0].shape[1:])).astype("float32")
    return inputs, rng.integers(0, model.outputs[0].shape[-1], size)

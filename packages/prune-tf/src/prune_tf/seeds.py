"""Random numbers that depend on a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let a block draw numbers that depend on the seed alone.

    Those of Python and numpy go on afterwards as if nothing had been drawn. TensorFlow does not say
    where its own are, so Keras and its backend go on from the seed.

    Args:
        seed: Any whole number.
    """
    python, numbers = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)

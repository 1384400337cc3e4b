"""How long a small model takes, in relation to the large one, measured here and now."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import keras

__all__ = ["relative_latency"]

REPETITIONS = 7


def relative_latency(small: keras.Model, large: keras.Model, inputs: Any) -> float:
    """Time two models in turns, so that a machine that changes its pace does so for both.

    Both run as `predict` runs them, compiled. Other work on the machine only ever adds time, so the
    fastest run of each counts.

    Args:
        small: The small model.
        large: The model that it was made of.
        inputs: A batch that both take.
    """
    if small is large:
        return 1.0
    times: dict[bool, list[float]] = {True: [], False: []}
    for repetition in range(REPETITIONS + 1):
        for is_small, model in ((True, small), (False, large)):
            start = perf_counter()
            model.predict_on_batch(inputs)  # arrays come back, so that all of it is done by then
            if repetition:  # the first is for compiling
                times[is_small].append(perf_counter() - start)
    return min(times[True]) / min(times[False])

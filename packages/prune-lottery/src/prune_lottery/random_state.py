"""The random numbers to come, of Python, NumPy, torch and given generators."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

__all__ = ["put_random", "take_random"]


def take_random(generators: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """Copy the states, as plain data that a safe loader accepts."""
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "torch": torch.get_rng_state(),
        "generators": [generator.get_state() for generator in generators],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = [str(name), keys.tolist(), *rest]
    return state


def put_random(state: dict[str, Any], generators: Sequence[torch.Generator] = ()) -> None:
    """Put back what `take_random` took."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state["torch"])
    for generator, its_state in zip(generators, state["generators"], strict=True):
        generator.set_state(its_state)
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "numpy" in state:
        numpy = import_module("numpy")
        name, keys, *rest = state["numpy"]
        numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), *rest))

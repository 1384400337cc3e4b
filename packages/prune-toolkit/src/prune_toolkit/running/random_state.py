"""The random numbers to come, of Python, NumPy, torch and its devices, as plain data."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

__all__ = ["put_random", "seeded", "take_random"]


def take_random(generators: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """Copy the states, as plain data that a safe loader accepts.

    Args:
        generators: Further ones, of the user's own.
    """
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "torch": torch.get_rng_state(),
        "devices": {str(device): _module(device).get_rng_state(device) for device in _devices()},
        "generators": [generator.get_state() for generator in generators],
    }
    if "numpy" in sys.modules:
        name, keys, place, has_gauss, gauss = sys.modules["numpy"].random.get_state()
        state["numpy"] = [str(name), keys.tolist(), int(place), int(has_gauss), float(gauss)]
    return state


def put_random(state: dict[str, Any], generators: Sequence[torch.Generator] = ()) -> None:
    """Put back what `take_random` took; devices that are not there are left out."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state["torch"])
    for device in _devices():
        if (its_state := state["devices"].get(str(device))) is not None:
            _module(device).set_rng_state(its_state, device)
    for generator, its_state in zip(generators, state["generators"], strict=True):
        generator.set_state(its_state)
    if "numpy" in state:
        numpy = import_module("numpy")
        name, keys, *rest = state["numpy"]
        numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), *rest))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let a block draw numbers that depend on the seed alone, and the rest of the program none."""
    states = take_random()
    torch.manual_seed(seed % 2**63)  # each takes another range
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        put_random(states)


def _devices() -> list[torch.device]:
    """Return the accelerators in use; asking one that is not would start it, which takes memory."""
    try:
        kind = torch.accelerator.current_accelerator()
    except RuntimeError:  # torch 2.6 raises where later ones return None
        return []
    if kind is None or not getattr(_module(kind), "is_initialized", lambda: True)():
        return []
    return [torch.device(kind.type, index) for index in range(torch.accelerator.device_count())]


def _module(device: torch.device) -> Any:
    return torch.get_device_module(device)

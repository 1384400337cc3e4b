"""The state of every random number generator that training draws from, as plain data."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from operator import index
from typing import Any

import torch

from prune_core import ConfigError

__all__ = ["as_seed", "get_rng_states", "seeded", "set_rng_states"]


def get_rng_states() -> dict[str, Any]:
    """Return the states of torch, its devices, Python and numpy, if numpy has been imported."""
    version, internal, gauss = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if (numpy := sys.modules.get("numpy")) is not None:
        kind, keys, position, has_gauss, cached = numpy.random.get_state()
        states["numpy"] = [kind, keys.tolist(), int(position), int(has_gauss), float(cached)]
    return states


def set_rng_states(states: dict[str, Any]) -> None:
    """Put every generator into the state that it had."""
    torch.set_rng_state(states["torch"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    if "numpy" in states:
        import numpy

        kind, keys, position, has_gauss, cached = states["numpy"]
        numpy.random.set_state((kind, numpy.array(keys, "uint32"), position, has_gauss, cached))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let a block draw numbers that depend on the seed alone, and the rest of the program none."""
    states = get_rng_states()
    torch.manual_seed(seed % 2**63)  # each takes another range
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        set_rng_states(states)


def as_seed(seed: Any) -> int:
    """Return a seed, which is any whole number."""
    try:
        return index(seed)
    except TypeError:
        raise ConfigError(f"seed is {seed!r}; it must be a whole number.") from None

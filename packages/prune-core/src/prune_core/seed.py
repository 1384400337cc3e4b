"""What a seed may be, in every framework."""

from __future__ import annotations

from operator import index
from typing import Any

from prune_core.errors import ConfigError

__all__ = ["as_seed"]


def as_seed(seed: Any) -> int:
    """Return a seed, which is any whole number.

    Raises:
        ConfigError: When it is something else.
    """
    try:
        return index(seed)
    except TypeError:
        raise ConfigError(f"seed is {seed!r}; it must be a whole number.") from None

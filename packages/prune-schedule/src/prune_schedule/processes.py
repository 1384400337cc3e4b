"""What the processes of a distributed run have to agree on."""

from __future__ import annotations

from typing import Any

from torch import distributed

__all__ = ["everyone", "from_first", "is_first", "rank"]


def _running() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Return the number of this process, 0 when it is alone."""
    return distributed.get_rank() if _running() else 0


def is_first() -> bool:
    """Whether this is the process that writes files and speaks to the user."""
    return rank() == 0


def everyone(value: Any) -> list[Any]:
    """Return what every process has for a value, in the order of their numbers."""
    if not _running():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def from_first(value: Any) -> Any:
    """Return what the first process has for a value."""
    return everyone(value)[0]

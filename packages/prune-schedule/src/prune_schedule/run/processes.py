"""Agreement between the processes of a distributed run."""

from __future__ import annotations

from typing import Any

from torch import distributed

from prune_toolkit.running.processes import everyone, is_distributed

__all__ = ["everyone", "from_first", "is_first", "rank"]


def rank() -> int:
    """Return the number of this process, 0 when it is alone."""
    return distributed.get_rank() if is_distributed() else 0


def is_first() -> bool:
    """Whether this is the process that writes files and speaks to the user."""
    return rank() == 0


def from_first(value: Any) -> Any:
    """Return what the first process has for a value."""
    return everyone(value)[0]

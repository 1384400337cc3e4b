"""Memory that was freed, and that the C library keeps."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["give_back", "is_large"]

_LARGE = 1 << 30


def is_large(used: int) -> bool:
    """Whether a model of so many bytes is worth the time that sparing memory takes."""
    return used >= _LARGE


def give_back(used: int) -> None:
    """Return to the system what lies idle between things in use.

    The C library keeps it for what is asked for next. After a run of a large model that is the room
    of its results, and after a cut that of what was cut out. Only glibc has to be told.

    Args:
        used: The bytes of the model that was worked with. Of a small one it is not worth the time
            that memory takes to be asked for again.
    """
    if is_large(used) and (trim := _trimmer()) is not None:
        trim(0)


@cache
def _trimmer() -> Callable[[int], Any] | None:
    try:
        found: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None  # another C library, or another system
    return found

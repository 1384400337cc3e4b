"""A time limit for a user's function."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from prune_core import ConfigError, PruneError

__all__ = ["call_within", "check_time_limit"]

Result = TypeVar("Result")


def check_time_limit(seconds: float | None) -> None:
    """Refuse a limit that cannot be enforced here.

    A function can be interrupted by a signal, and signals reach the main thread alone.
    """
    if seconds is None:
        return
    if not (isinstance(seconds, int | float) and 0 < seconds <= threading.TIMEOUT_MAX):
        raise ConfigError(
            f"trial_timeout is {seconds!r}; it must be a number of seconds above 0, or None for "
            "no limit."
        )
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        raise PruneError(
            "trial_timeout needs the main thread of a Unix process; leave it out here, and limit "
            "the time inside evaluate."
        )


class _TimeUpError(BaseException):
    """Not an `Exception`, so that a user's `except Exception` does not take it for its own."""


def call_within(seconds: float | None, function: Callable[[], Result]) -> Result:
    """Call a function, and raise `TimeoutError` from it when it takes longer.

    A function and no context manager: a signal that comes while one is being entered would find
    the block not begun, and nobody to stop the clock.
    """
    if seconds is None:
        return function()
    over = False

    def stop(number: int, frame: FrameType | None) -> None:
        if not over:
            raise _TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        # Again each second, for code that catches everything and goes on.
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        result = function()
        over = True
    except _TimeUpError:
        over = True
        raise TimeoutError(f"no result after {seconds:g} s") from None
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return result

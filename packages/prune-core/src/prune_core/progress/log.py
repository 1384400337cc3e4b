"""The logger `prune`, whose lines are seen although nobody has configured logging.

Silence it with `logging.getLogger("prune").setLevel(logging.WARNING)`, or with `PRUNE_PROGRESS=0`
in the environment, which leaves warnings.
"""

from __future__ import annotations

import logging
import os
import sys

__all__ = ["is_first", "log", "text_of_time"]

log = logging.getLogger("prune")


class _LastResort(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr if nobody else would show a record.

    Python does so by itself, but only for warnings. Whoever configures logging gets the records
    through their own handlers, and not twice.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))

    # Looked up for each record, because notebooks, tests and progress bars replace it.
    @property
    def stream(self) -> object:
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        others = [handler for handler in log.handlers if handler is not self]
        if not others and not (log.propagate and logging.getLogger().handlers):
            super().emit(record)


def is_first() -> bool:
    """Whether this process is the one of a distributed run that speaks to the user."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        return True
    return bool(distributed.get_rank() == 0)


def text_of_time(seconds: float) -> str:
    """Say how long something takes as a person would.

    >>> [text_of_time(seconds) for seconds in (0.42, 59.7, 61, 3725)]
    ['0.4 s', '60 s', '1 min 1 s', '1 h 2 min']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


if not any(isinstance(handler, _LastResort) for handler in log.handlers):
    log.addHandler(_LastResort())
if log.level == logging.NOTSET:
    # An INFO line passes the handlers of the root logger whatever level that has.
    silent = os.environ.get("PRUNE_PROGRESS", "1").lower() in ("0", "off", "false", "no")
    log.setLevel(logging.WARNING if silent else logging.INFO)

"""What the user sees while something long goes on: a bar in a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from time import monotonic
from types import TracebackType
from typing import Any, Self

__all__ = ["Progress"]


class Progress:
    """Shows steps as they are done.

    Args:
        title: What is running.
        total: How many steps there will be, or None.
        step: What a step is called in log lines.
        shown: Whether this process is the one that speaks to the user.
        logger: Where lines go when there is no terminal.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        step: str = "step",
        shown: bool = True,
        logger: str = "prune_core",
    ) -> None:
        self.title, self.total, self.step, self.shown = title, total, step, shown
        self._log = logging.getLogger(logger)
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._began, self._done = monotonic(), 0
        if self.shown and sys.stderr.isatty():
            self._bar = _bar()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, said="")
        return self

    def done(self, said: str) -> None:
        """Show one more step, and what is said of it."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, advance=1, said=said)
        elif self.shown:
            of = "" if self.total is None else f" of {self.total}"
            self._log.info(
                "%s: %s %d%s  %s%s", self.title, self.step, self._done, of, said, self._left()
            )

    def _left(self) -> str:
        if not self.total:
            return ""
        seconds = (monotonic() - self._began) / self._done * (self.total - self._done)
        return f"  {seconds:.0f} s left"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Any:
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    return progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        "{task.fields[said]}",
        console=Console(stderr=True),
    )

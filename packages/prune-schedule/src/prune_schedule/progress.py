"""What the user sees while a search goes on: a bar in a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Self

from prune_schedule.processes import is_first

__all__ = ["Progress"]

_log = logging.getLogger("prune_schedule")


class Progress:
    """Shows the trials of a search as they come.

    Args:
        title: What is running.
        total: How many trials there will be, or None.
    """

    def __init__(self, title: str, total: int | None) -> None:
        self.title, self.total = title, total
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._began, self._done = monotonic(), 0
        if is_first() and sys.stderr.isatty():
            self._bar = _bar()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, said="")
        return self

    def advance(self, trial: Mapping[str, Any], best: float | None) -> None:
        """Show one more trial, and the best score so far."""
        self._done += 1
        said = (
            f"sparsity {trial['sparsity']:.1%}  score {_shown(trial['score'])}  best {_shown(best)}"
        )
        if self._bar is not None:
            self._bar.update(self._task, advance=1, said=said)
        elif is_first():
            of = "" if self.total is None else f" of {self.total}"
            _log.info("%s: trial %d%s  %s%s", self.title, self._done, of, said, self._left())

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


def _shown(score: float | None) -> str:
    return "none" if score is None else f"{score:.4g}"


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

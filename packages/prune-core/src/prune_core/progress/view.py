"""What prune shows of a task by itself: lines, and a bar or a renewed line where there can be one.

Nothing here runs in a thread of its own: what is seen changes when a task is further. A bar is for
steps that are over in a moment. Steps that take longer are worth a line each, and a bar would be in
the way of what the user's own training prints meanwhile.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any

from prune_core.progress.log import is_first, log, text_of_time

if TYPE_CHECKING:
    from prune_core.progress.task import Task

__all__ = ["show"]

# What is over sooner is not worth a word, unless it is to be announced.
PATIENCE = 2.0
# Between two lines at least so long, at most so long, and in between a tenth of what has passed.
SHORTEST, LONGEST = 2.0, 60.0
A_MOMENT = 1.0
REDRAW = 0.1


def show(task: Task) -> None:
    """Show what has become of a task."""
    if not log.isEnabledFor(logging.WARNING if task.state == "stopped" else logging.INFO):
        return
    if not is_first():
        return
    # A part of something larger is told of when it takes its time.
    announced = task.announce and task.parent is None
    if task.state in ("ended", "stopped"):
        _bars.pop(task)
        if announced or task.elapsed > PATIENCE:
            level = logging.WARNING if task.state == "stopped" and announced else logging.INFO
            log.log(level, _ending(task))
    elif task.state == "begun":
        if announced:
            log.info(_heading(task))
    elif log.isEnabledFor(logging.DEBUG):
        log.debug(_step(task))
    elif task.elapsed > PATIENCE and not _bars.draw(task):
        _line(task)


_next_line = 0.0


def _line(task: Task) -> None:
    """Write a line, unless there was one a moment ago."""
    global _next_line
    now = monotonic()
    last = not task.under_way and task.total is not None and task.done >= task.total
    if now < _next_line or last:  # of the last step the ending says the same
        return
    outermost = task
    while outermost.parent is not None:
        outermost = outermost.parent
    _next_line = now + min(max(SHORTEST, outermost.elapsed / 10), LONGEST)
    log.info(_step(task))


# --- the words --------------------------------------------------------------------------------


def _heading(task: Task) -> str:
    return f"{_where(task)}: {_joined(_count(task, task.total), task.said)}"


def _step(task: Task) -> str:
    left = "" if task.left is None else f"about {text_of_time(task.left)} left"
    place = _place(task, task.done + task.under_way)
    return f"{_where(task)}: {_joined(place, task.said, left)}"


def _ending(task: Task) -> str:
    done = _count(task, task.done)
    if task.state == "stopped":
        of = "" if task.total is None else f" of {task.total}"
        done = f"stopped after {task.done}{of} {_plural(task, task.total or task.done)}"
    said = task.said if task.done else ""  # before the first step, that is what it is for
    return f"{_where(task)}: {_joined(f'{done} in {text_of_time(task.elapsed)}', said)}"


def _where(task: Task) -> str:
    """Return the title of a task, after those that it belongs to and where they are."""
    if task.parent is None:
        return task.title
    under_way = task.parent.done + 1
    return f"{_where(task.parent)}, {_place(task.parent, under_way)} · {task.title}"


def _place(task: Task, step: int) -> str:
    if task.total is None:
        return f"{task.unit} {step}"
    return f"{task.unit} {min(step, task.total)} of {task.total}"


def _count(task: Task, number: int | None) -> str:
    return "" if number is None else f"{number} {_plural(task, number)}"


def _plural(task: Task, number: int) -> str:
    if number == 1:
        return task.unit
    return f"{task.unit}es" if task.unit.endswith(("tch", "s", "x")) else f"{task.unit}s"


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


# --- bars -------------------------------------------------------------------------------------


class _Bars:
    """The bars of all tasks that have one, in a terminal or in a notebook."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self._screen: Any = None
        self._drawn = 0.0

    def draw(self, task: Task) -> bool:
        """Draw the bar of a task, and return whether there is one."""
        if task not in self._tasks:
            if task.pace is None or task.pace > A_MOMENT:
                return False
            if self._screen is None:
                self._screen = _notebook() or _terminal()
            if self._screen is None:
                return False
            self._tasks.append(task)
        if monotonic() - self._drawn > REDRAW:
            self._screen.draw([(_where(task), task) for task in self._tasks])
            self._drawn = monotonic()
        return True

    def pop(self, task: Task) -> None:
        """Take the bar of a task away, and the screen with the last one."""
        if task not in self._tasks:
            return
        self._tasks.remove(task)
        if not self._tasks:
            self._screen.close()
            self._screen, self._drawn = None, 0.0


_bars = _Bars()


class _Terminal:
    """Bars of rich, below what is printed meanwhile."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._rows: dict[Task, Any] = {}
        progress.start()

    def draw(self, tasks: list[tuple[str, Task]]) -> None:
        for gone in [task for task in self._rows if task not in [t for _, t in tasks]]:
            self._progress.remove_task(self._rows.pop(gone))
        for where, task in tasks:
            if task not in self._rows:
                self._rows[task] = self._progress.add_task(where, total=task.total, said="")
            left = "" if task.left is None else f"about {text_of_time(task.left)} left"
            self._progress.update(
                self._rows[task], completed=task.done, said=_joined(task.said, left)
            )
        self._progress.refresh()

    def close(self) -> None:
        self._progress.stop()


def _terminal() -> _Terminal | None:
    if not sys.stderr.isatty():
        return None
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    columns = (
        *("{task.description}", progress.BarColumn(), progress.MofNCompleteColumn()),
        "{task.fields[said]}",
    )
    console = Console(stderr=True)
    return _Terminal(
        progress.Progress(*columns, console=console, auto_refresh=False, transient=True)
    )


class _Notebook:
    """A line for each task, renewed in its place below the cell."""

    def __init__(self, display: Callable[..., Any]) -> None:
        self._handle = display({"text/plain": ""}, raw=True, display_id=True)

    def draw(self, tasks: list[tuple[str, Task]]) -> None:
        text = "\n".join(_step(task) for _, task in tasks)
        self._handle.update({"text/plain": text}, raw=True)

    def close(self) -> None:
        self._handle.update({"text/plain": ""}, raw=True)


def _notebook() -> _Notebook | None:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if not hasattr(shell, "kernel"):
        return None
    return _Notebook(import_module("IPython.display").display)

"""Something that takes a while, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Literal, Self, TypeVar

from prune_core.events import emit
from prune_core.progress.log import is_first, log

__all__ = ["Task", "note", "stage", "track"]

Item = TypeVar("Item")
State = Literal["begun", "running", "ended", "stopped"]


class _Stack(threading.local):
    def __init__(self) -> None:
        self.tasks: list[Task] = []


_stack = _Stack()


class Task:
    """Something that takes a while, in steps.

    Tasks that are entered inside of another one belong to it: a calibration to the trial of a
    search, the search to a round of AutoCompress.

    Args:
        title: What is running, such as `"NetAdaptPruner"`.
        total: How many steps there will be, or None where that is not known.
        unit: What a step is called.
        said: What to say of it at its beginning.
        announce: Whether its beginning and its end are worth a line, however short it is.

    Attributes:
        done: How many steps have been made.
        under_way: Whether what was said is about the step after those.
        said: What was said last, such as a score.
        state: `"begun"`, `"running"`, `"ended"`, or `"stopped"` by an exception.
        parent: The task that it belongs to, or None.

    Example:
        >>> with Task("LevelPruner", 2, "batch") as task:
        ...     for batch in range(2):
        ...         task.advance(f"loss {0.5 / (batch + 1):g}")
        >>> task.done, task.said, task.state
        (2, 'loss 0.25', 'ended')
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        unit: str = "step",
        said: str = "",
        *,
        announce: bool = False,
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.said, self.announce = said, announce
        self.done, self.state, self.parent = 0, "begun", None
        self.under_way, self._replayed = False, 0
        self._began = monotonic()

    done: int
    state: State
    parent: Task | None

    def __enter__(self) -> Self:
        self._began = monotonic()
        self.parent = _stack.tasks[-1] if _stack.tasks else None
        _stack.tasks.append(self)
        self._tell()
        return self

    def advance(self, said: str | None = None, *, replayed: bool = False) -> None:
        """Make a step.

        Args:
            said: What to say of it; what was said before stands unless given.
            replayed: Whether the step was made in an earlier start, so that it says nothing about
                how long the others will take.
        """
        self.done += 1
        self._replayed += replayed
        self._hear(self.said if said is None else said, under_way=False)

    def say(self, said: str) -> None:
        """Say something of the step that is being made.

        Args:
            said: What it does, in a few words.
        """
        self._hear(said, under_way=True)

    def _hear(self, said: str, *, under_way: bool) -> None:
        self.said, self.under_way, self.state = said, under_way, "running"
        self._tell()

    @property
    def elapsed(self) -> float:
        """For how many seconds it has been running."""
        return monotonic() - self._began

    @property
    def pace(self) -> float | None:
        """How many seconds a step takes, on average, or None before there has been one."""
        made = self.done - self._replayed
        return self.elapsed / made if made else None

    @property
    def left(self) -> float | None:
        """In how many seconds it will probably end, or None where nobody knows."""
        pace = self.pace
        if self.total is None or pace is None:
            return None
        return pace * max(0, self.total - self.done)

    def _tell(self) -> None:
        emit("prune_progress", task=self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.state = "ended" if kind is None else "stopped"
        if self in _stack.tasks:  # a generator may be closed by another thread
            _stack.tasks.remove(self)
        self._tell()


def track(
    items: Iterable[Item], title: str, total: int | None = None, unit: str = "step"
) -> Iterator[Item]:
    """Yield items one after the other, as the steps of a task.

    Args:
        items: What to go through.
        title: What is being done, such as `"calibrate"`.
        total: How many there are, if `items` does not know.
        unit: What one of them is called.
    """
    with Task(title, total, unit) as task:
        for item in items:
            yield item
            task.advance()


@contextmanager
def stage(said: str) -> Iterator[None]:
    """Make a step of the innermost task of this thread, if there is one.

    Args:
        said: What the step does, which is said when it begins.
    """
    task = _stack.tasks[-1] if _stack.tasks else None
    if task is not None:
        task.say(said)
    yield
    if task is not None:
        task.advance()


_noted: dict[str, float] = {}
EVERY = 2.0


def note(title: str, text: str | Callable[[], str], *, always: bool = False) -> None:
    """Log what has happened to something that has no end of its own, such as a user's training.

    Args:
        title: What it happened to.
        text: What happened; or a function that says so, where that takes time.
        always: Whether it is said even though something was said of the same a moment ago.
    """
    now = monotonic()
    if always or now - _noted.get(title, -EVERY) >= EVERY:
        _noted[title] = now
        if is_first():
            log.info("%s: %s", title, text() if callable(text) else text)

"""What a framework says of its operators: the rules that the engine sends labels through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.values import Value

__all__ = ["Declined", "Entry", "Rule", "Rules"]

Rule = Callable[[Flow, Call], Value | Sequence[Value | None]]


class Declined(Exception):  # noqa: N818 - nothing went wrong
    """What a rule raises for a call that it says nothing of; the text is the reason.

    Whatever goes into such a call stays, which is always right.
    """


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule and whether it hands on a pending normalisation (see `Value.pending`)."""

    apply: Rule
    carries: bool


class Rules(Protocol):
    """The rules of a framework."""

    def find(self, target: Any) -> Entry | None:
        """Return the rule of an operator."""

    def repeatable(self, target: Any) -> bool:
        """Return whether an operator makes the same numbers of the same inputs each time."""

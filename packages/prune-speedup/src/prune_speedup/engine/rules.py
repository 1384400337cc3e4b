"""What a framework says of its operators: the rules that the engine sends labels through."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.values import Value

__all__ = ["Declined", "Entry", "Rule", "RuleError", "Rules", "failed"]

Rule = Callable[[Flow, Call], Value | Sequence[Value | None]]


class Declined(Exception):  # noqa: N818 - nothing went wrong
    """What a rule raises for a call that it says nothing of; the text is the reason.

    Whatever goes into such a call stays, which is always right.
    """


class RuleError(Exception):
    """A rule has raised what no rule is meant to raise; that is the cause of this."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule and whether it hands on a pending normalisation (see `Value.pending`).

    Attributes:
        apply: What is called.
        carries: Whether it hands one on.
        written: The function that somebody wrote, where `apply` only leads to it.
    """

    apply: Rule
    carries: bool
    written: Rule | None = None


def failed(entry: Entry, call: Call, error: Exception) -> RuleError:
    """Return what to say of a rule that has raised an error: which, on what, and where.

    Args:
        entry: The rule.
        call: What it was called for.
        error: What it raised.
    """
    rule = entry.written or entry.apply
    name = f"{getattr(rule, '__module__', '')}.{getattr(rule, '__qualname__', rule)}"
    frames = traceback.extract_tb(error.__traceback__)
    code = getattr(rule, "__code__", None)
    # Where the rule itself was: what it calls may have raised the error deep inside.
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    if own:
        place = f"{own[-1].filename}:{own[-1].lineno}"
    elif code is not None:  # it could not even be called
        place = f"{code.co_filename}:{code.co_firstlineno}"
    else:
        place = f"{frames[-1].filename}:{frames[-1].lineno}"
    told = RuleError(
        f"the rule {name} of {call.target} failed: {type(error).__name__}: {error} ({place})"
    )
    told.__cause__ = error
    return told


class Rules(Protocol):
    """The rules of a framework."""

    def find(self, target: Any) -> Entry | None:
        """Return the rule of an operator."""

    def repeatable(self, target: Any) -> bool:
        """Return whether an operator makes the same numbers of the same inputs each time."""

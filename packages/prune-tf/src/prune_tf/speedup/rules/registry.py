"""Where rules are found, by the class name of a layer or operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call

__all__ = ["RULES", "Rule", "rule"]

# A rule returns what is known of each output, or None where it does not apply; then the channels
# of the inputs and outputs stay, which is always right.
Rule = Callable[[Analysis, Call], list[Flow] | None]
RULES: dict[str | type, Rule] = {}


def rule(*kinds: str | type) -> Callable[[Rule], Rule]:
    """Make a function the rule for classes: for Keras' by their names, for others themselves.

    A class of your own that goes by the name of one of Keras' may do anything, so that a name
    speaks for Keras' alone.
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def rule_for(op: Any) -> Rule | None:
    """Return the rule for a layer or operation, if there is one."""
    kind = type(op)
    if kind in RULES:
        return RULES[kind]
    from_keras = kind.__module__.partition(".")[0] == "keras"
    return RULES.get(kind.__name__) if from_keras else None

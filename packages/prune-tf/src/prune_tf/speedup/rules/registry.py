"""Where rules are found, by the class name of a layer or operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call
from prune_tf.speedup.rules.of_plugins import rule_of_plugin

__all__ = ["RULES", "Rule", "is_wide", "rule", "rule_for"]

# A rule returns what is known of each output, or None where it does not apply; then the channels
# of the inputs and outputs stay, which is always right.
Rule = Callable[[Analysis, Call], list[Flow] | None]
RULES: dict[str | type, Rule] = {}
_WIDE: set[Rule] = set()


def rule(*kinds: str | type, wide: bool = False) -> Callable[[Rule], Rule]:
    """Make a function the rule for classes: for Keras' by their names, for others themselves.

    A class of your own that goes by the name of one of Keras' may do anything, so that a name
    speaks for Keras' alone.

    Args:
        kinds: The classes.
        wide: Whether the rule reads all of `Flow.parts`. Any other is given one axis, the last
            one if that can be, and what lies along others stays.
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        if wide:
            _WIDE.add(function)
        return function

    return register


def rule_for(op: Any) -> Rule | None:
    """Return the rule for a layer or operation, if there is one."""
    kind = type(op)
    if kind in RULES:
        return RULES[kind]
    from_keras = kind.__module__.partition(".")[0] == "keras"
    return RULES.get(kind.__name__) if from_keras else rule_of_plugin(kind)


def is_wide(op: Any) -> bool:
    """Whether the rule for a layer or operation reads what is known of all axes."""
    return rule_for(op) in _WIDE

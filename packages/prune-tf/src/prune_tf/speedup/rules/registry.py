"""Where rules are found, by the class name of a layer or operation."""

from __future__ import annotations

from collections.abc import Callable

from prune_tf.speedup.analysis import Analysis, Flow
from prune_tf.speedup.graph import Call

__all__ = ["RULES", "Rule", "rule"]

# A rule returns what is known of each output, or None where it does not apply; then the channels
# of the inputs and outputs stay, which is always right.
Rule = Callable[[Analysis, Call], list[Flow] | None]
RULES: dict[str, Rule] = {}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Make a function the rule for classes of these names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register

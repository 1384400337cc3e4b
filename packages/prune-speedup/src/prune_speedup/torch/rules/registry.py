"""Which rule speaks for which operator.

A rule is a function of the flow and one call; it returns the value, or the values, that the call
makes. The decorator registers those of torch's own operators; a plugin registers its own with the
hook `prune_register_rules`, and one made in passing, in a notebook, may use the decorator too:

    @rule("mylib.swirl")
    def swirl(flow, call):
        return flow.get(call.args[0])
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from prune_core.registry import get_extension, names
from prune_speedup.engine.graph import text_of
from prune_speedup.engine.rules import Entry, Rule

__all__ = ["TORCH", "Entry", "Rule", "find_rule", "has_rule", "registered", "rule"]

_RULES: dict[str, Entry] = {}
_registered = 0


def rule(*names: str, carries: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for operators.

    Args:
        names: `namespace.operator` or `namespace.operator.overload`. The in-place form of an
            operator (`relu_`) follows the rule of the plain one.
        carries: Whether a mean that went in is still only a mean when it comes out, as is so for
            what works element by element or only moves data.
    """

    def register(function: Rule) -> Rule:
        global _registered
        _registered += 1
        for name in names:
            _RULES[name] = Entry(function, carries)
        return function

    return register


def registered() -> int:
    """How often a rule was registered: what was found out by fewer of them may be outdated."""
    return _registered


def find_rule(target: Any) -> Entry | None:
    """The rule of an operator: its overload's own, its name's, or that of its kind."""
    text = text_of(target)
    if (entry := _RULES.get(text)) is not None:
        return entry
    namespace, _, rest = text.partition(".")
    operator = rest.partition(".")[0]
    for name in (operator, operator.rstrip("_")):
        if (entry := _RULES.get(f"{namespace}.{name}")) is not None:
            return entry
    if torch.Tag.pointwise in getattr(target, "tags", ()):
        return _RULES["kind.pointwise"]
    for name in names("rule") & {text, f"{namespace}.{operator}"}:
        if (foreign := get_extension("rule", name)) is not None:
            return Entry(foreign, carries=getattr(foreign, "carries", False))
    return None


def has_rule(target: Any) -> bool:
    """Whether an operator needs no decomposition."""
    return find_rule(target) is not None


class _Torch:
    """The rules of torch's operators, as the engine asks for them."""

    find = staticmethod(find_rule)

    @staticmethod
    @cache
    def repeatable(target: Any) -> bool:
        """Whether an operator's result follows from its inputs: it is not random, nor rubbish."""
        random = torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())
        return not random and "empty" not in text_of(target)


TORCH = _Torch()

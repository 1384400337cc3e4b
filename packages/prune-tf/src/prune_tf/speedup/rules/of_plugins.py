"""Rules for layers of other packages, as plugins register them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from prune_core.registry import entries, get_extension

if TYPE_CHECKING:
    from prune_tf.speedup.rules.registry import Rule

__all__ = ["rule_of_plugin"]


def rule_of_plugin(kind: type) -> Rule | None:
    """Return the rule that a plugin registers for a class of layers, if one does.

    Args:
        kind: The class; registered is its dotted path, or one by which it can be imported as well.
    """
    for entry in entries("rule"):
        module, _, name = entry.name.rpartition(".")
        if entry.reference.framework == "keras" and name == kind.__name__:
            there = getattr(sys.modules.get(module), name, None)
            if there is kind or module == kind.__module__:
                return get_extension("rule", entry.name)
    return None

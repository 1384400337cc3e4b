"""The rules of a search that is told how much may be left, and not how much goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.errors import ConfigError
from prune_speedup.budget.ratios import check_target

__all__ = ["AMOUNTS", "without_amounts"]

AMOUNTS = ("sparsity", "sparsity_per_layer", "total_sparsity")
"""The names that a sparsity goes by in a config."""


def without_amounts(
    config_list: Sequence[Mapping[str, Any]], target: Mapping[str, float]
) -> list[Mapping[str, Any]]:
    """Return the rules for a search with a target, which says how much, so that they need not.

    Args:
        config_list: The rules, without amounts.
        target: What may be left of the model.

    Raises:
        ConfigError: When a rule says how much as well.

    Example:
        >>> without_amounts([{"op_types": ["Dense"]}], {"flops": 0.5})
        [{'op_types': ['Dense'], 'sparsity': 0.0}]
    """
    check_target(target)
    rules: list[Mapping[str, Any]] = []
    for place, entry in enumerate(config_list):
        if not isinstance(entry, Mapping) or entry.get("exclude", False):
            rules.append(entry)
            continue
        said = [key for key in AMOUNTS if entry.get(key)]
        if said:
            raise ConfigError(
                f"config_list[{place}] says {said[0]!r}: {entry[said[0]]!r}, and target is "
                f"{dict(target)!r}; keep one of the two."
            )
        rest = {key: value for key, value in entry.items() if key not in AMOUNTS}
        rules.append({**rest, "sparsity": 0.0})
    return rules

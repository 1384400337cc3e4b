"""The rules of a search that is told how much may be left, and not how much goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.errors import ConfigError
from prune_speedup.budget.ratios import check_target

__all__ = ["AMOUNTS", "goal_of", "without_amounts"]

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


def goal_of(
    config_list: Any,
    target: Mapping[str, float] | str | None,
    flops_ratio: float | None,
) -> tuple[Any, dict[str, float]]:
    """Return rules that do not say how much, and the target, whoever said what it is.

    Args:
        config_list: The rules.
        target: What may be left, or the kind of it of which the rules' sparsity goes.
        flops_ratio: What may be left of the FLOPs.

    Raises:
        ConfigError: When several of them say it.

    Example:
        >>> goal_of([{"sparsity": 0.75, "op_types": ["Dense"]}], "params", None)
        ([{'op_types': ['Dense']}], {'parameters': 0.25})
    """
    said = [] if flops_ratio is None else [("flops_ratio", flops_ratio)]
    if isinstance(target, Mapping):
        said.append(("target", 0.0))
    amounts = [
        float(entry[key])
        for entry in (config_list if isinstance(config_list, list | tuple) else ())
        if isinstance(entry, Mapping)
        for key in AMOUNTS
        if entry.get(key) and isinstance(entry[key], int | float)
    ]
    if len(said) > 1 or (said and amounts):
        others = [name for name, _ in said[1:]] or ["the sparsity of the rules"]
        raise ConfigError(
            f"{said[0][0]} and {others[0]} both say what may be left; keep one of them."
        )
    if isinstance(target, Mapping):
        return config_list, dict(target)
    kind = {None: "flops", "flops": "flops", "params": "parameters"}.get(target, target)
    if not amounts:
        return config_list, {str(kind): said[0][1] if said else 0.5}
    if len(set(amounts)) > 1:
        raise ConfigError(
            f"The rules say {', '.join(f'{a:g}' for a in amounts)} in different entries; AMC has "
            "one budget for all layers, so say the same in each, or give target=."
        )
    if not 0 < amounts[0] < 1:
        return config_list, {str(kind): 0.5}  # the rules are refused for what they say
    rules = [
        {key: value for key, value in entry.items() if key not in AMOUNTS} for entry in config_list
    ]
    return rules, {str(kind): 1.0 - amounts[0]}

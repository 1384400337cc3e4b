"""What a search requires of the rules and of the one-shot algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prune_core import ConfigError
from prune_schedule.run.delegating import AMOUNTS
from prune_speedup.budget.target import check_target

__all__ = ["coupled", "without_amounts"]


def coupled(
    algorithm: Callable[..., Any], params: Mapping[str, Any], example_inputs: Any
) -> dict[str, Any]:
    """Return the arguments with which an algorithm respects dependencies between layers."""
    if "dependency_aware" not in getattr(algorithm, "modes", ()) or "mode" in params:
        return dict(params)
    return {"mode": "dependency_aware", "dummy_input": example_inputs, **params}


def without_amounts(
    config_list: Sequence[Mapping[str, Any]], target: Mapping[str, float], example_inputs: Any
) -> list[Mapping[str, Any]]:
    """Return the rules for a search with a target, which says how much, so that they need not.

    Raises:
        ConfigError: When a rule says how much as well.
    """
    check_target(target)
    if example_inputs is None:
        raise ConfigError(
            f"target is {dict(target)!r}; to know what is left, the model has to be run: give "
            "dummy_input=, an input of it."
        )
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

"""What a search requires of the rules and of the one-shot algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prune_core import ConfigError
from prune_speedup.budget.target import check_target
from prune_speedup.search.rules import without_amounts

__all__ = ["coupled", "rules_for_target"]


def coupled(
    algorithm: Callable[..., Any], params: Mapping[str, Any], example_inputs: Any
) -> dict[str, Any]:
    """Return the arguments with which an algorithm respects dependencies between layers."""
    if "dependency_aware" not in getattr(algorithm, "modes", ()) or "mode" in params:
        return dict(params)
    return {"mode": "dependency_aware", "dummy_input": example_inputs, **params}


def rules_for_target(
    config_list: Sequence[Mapping[str, Any]], target: Mapping[str, float], example_inputs: Any
) -> list[Mapping[str, Any]]:
    """Return the rules for a search with a target, which says how much, so that they need not.

    Raises:
        ConfigError: When a rule says how much as well, or there is no input to run the model with.
    """
    check_target(target)
    if example_inputs is None:
        raise ConfigError(
            f"target is {dict(target)!r}; to know what is left, the model has to be run: give "
            "dummy_input=, an input of it."
        )
    return without_amounts(config_list, target)

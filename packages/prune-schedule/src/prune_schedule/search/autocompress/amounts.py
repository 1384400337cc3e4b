"""How much of a model is gone at the end of each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prune_speedup.search.rules import AMOUNTS

__all__ = ["rules_of_round", "target_of_round"]


def rules_of_round(
    rules: Sequence[Mapping[str, Any]], done: float, gone: Callable[[int], float]
) -> list[Mapping[str, Any]]:
    """Return the rules of a round, which prunes what is left then.

    By a part `t` of all rounds, `1 − (1 − s)^t` is gone of a final sparsity s: each round takes the
    same part of what is left.

    Args:
        rules: Those of all rounds.
        done: The part of all rounds that is done when this one is.
        gone: Takes the place of a rule and returns what its layers have lost for good, removed
            and no longer there to be pruned.

    Example:
        >>> rules_of_round([{"sparsity": 0.75}], 0.5, lambda place: 0.0)
        [{'sparsity': 0.5}]
    """
    found: list[Mapping[str, Any]] = []
    for place, entry in enumerate(rules):
        amount = next((key for key in AMOUNTS if key in entry), None)
        if amount is None:
            found.append(entry)
            continue
        wanted, lost = 1.0 - (1.0 - float(entry[amount])) ** done, gone(place)
        rest = {key: value for key, value in entry.items() if key != amount}
        found.append({**rest, "sparsity": max(0.0, (wanted - lost) / (1.0 - lost))})
    return found


def target_of_round(
    target: Mapping[str, float], done: float, left: Mapping[str, float]
) -> dict[str, float]:
    """Return the target of a round, of what is left then; without what has been met.

    Args:
        target: That of all rounds.
        done: The part of all rounds that is done when this one is.
        left: What is left of the dense model, of each kind of cost.

    Example:
        >>> target_of_round({"flops": 0.25}, 0.5, {"flops": 0.8})
        {'flops': 0.625}
    """
    wanted = {kind: ratio**done / left[kind] for kind, ratio in target.items()}
    return {kind: ratio for kind, ratio in wanted.items() if ratio < 1.0}

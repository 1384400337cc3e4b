"""Rounds that each prune the same part of what is left: how much is gone when, in any framework."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from prune_core.errors import ConfigError
from prune_core.files import make_folder
from prune_speedup.search.rules import AMOUNTS

__all__ = ["PruningInRounds", "check_rounds", "goal", "rules_of_round", "said", "target_of_round"]


def check_rounds(number: Any) -> int:
    """Return the number of rounds.

    Raises:
        ConfigError: When it is none.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigError(
            f"total_iteration is {number!r}; it must be a whole number of at least 1."
        )
    return number


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


class PruningInRounds:
    """What AutoCompress asks of each of its rounds; a base of its pruner in each framework."""

    rounds: int
    config_list: Any
    target: Mapping[str, float] | None
    seed: int
    speedup: bool
    _rules: Sequence[Mapping[str, Any]]
    # For each layer the rule that it belongs to, and how many weights it had at first.
    _entries: dict[str, int]
    _sizes: dict[str, int]
    # What is left of the dense model, of each kind of the target.
    _left: dict[str, float]
    _folder: Path | None

    def _sizes_now(self, names: Collection[str]) -> int:
        """Return how many weights some layers have."""
        raise NotImplementedError

    def _seed_of(self, number: int) -> int:
        return self.seed * 1_000_003 + number

    def _part(self, number: int) -> Path | None:
        """Return the folder of a round."""
        if self._folder is None:
            return None
        part = self._folder / f"round-{number}"
        make_folder(part)
        return part

    def _rules_of(self, number: int) -> list[Mapping[str, Any]]:
        """Return the rules of a round, which prunes what is left then."""
        if self.target is not None:
            return list(self.config_list)
        return rules_of_round(self._rules, number / self.rounds, self._removed)

    def _removed(self, entry: int) -> float:
        """Return what the layers of an entry have lost for good."""
        if not self.speedup:
            return 0.0
        names = {name for name, index in self._entries.items() if index == entry}
        return 1.0 - self._sizes_now(names) / max(1, sum(self._sizes[name] for name in names))

    def _target_of(self, number: int) -> dict[str, float] | None:
        """Return the target of a round, of what is left then; without what has been met."""
        if self.target is None:
            return None
        left = self._left if self.speedup else dict.fromkeys(self.target, 1.0)
        return target_of_round(self.target, number / self.rounds, left)


def goal(rules: Sequence[Mapping[str, Any]], target: Mapping[str, float] | None) -> str:
    """Say what all rounds come to.

    Example:
        >>> goal([{"sparsity": 0.5}], None), goal([], {"flops": 0.25})
        ('to prune 50.0% of the weights', 'to leave 25.0% of the flops')
    """
    if target is not None:
        return "to leave " + " and ".join(f"{ratio:.1%} of the {k}" for k, ratio in target.items())
    amounts = {float(entry[key]) for entry in rules for key in AMOUNTS if entry.get(key)}
    return f"to prune {' and '.join(f'{amount:.1%}' for amount in sorted(amounts))} of the weights"


def said(trial: Mapping[str, Any]) -> str:
    """Say what came of a round."""
    score = "none" if trial["score"] is None else f"{trial['score']:.4g}"
    return f"sparsity {trial['sparsity']:.1%}, score {score}"

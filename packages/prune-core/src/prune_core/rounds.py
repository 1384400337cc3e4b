"""The sparsity of each round: every one prunes the same share of what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prune_core.config import Key, parse
from prune_core.curves import geometric
from prune_core.errors import ConfigError

__all__ = ["MOST_ROUNDS", "ROUNDS_KEY", "sparsity_after", "take_rounds"]

ROUNDS_KEY = "prune_iterations"

# The masks of all rounds together are kept as one byte for each value.
MOST_ROUNDS = 254


def sparsity_after(index: int, rounds: int, final: float) -> float:
    """Return the sparsity of round `index` out of `rounds`, when `final` is that of the last.

    `1 - (1 - P)^(t / n)`: each round prunes `1 - (1 - P)^(1 / n)` of what survives.

    >>> [round(sparsity_after(t, 5, 0.8), 3) for t in range(6)]
    [0.0, 0.275, 0.475, 0.619, 0.724, 0.8]
    """
    # The power would miss the last value by a rounding error, and a weight with it.
    return final if index == rounds else geometric(index / rounds, 0.0, final)


def take_rounds(
    config_list: Sequence[Mapping[str, Any]], rounds: int | None, keys: Iterable[str | Key] = ()
) -> tuple[list[dict[str, Any]], int]:
    """Separate the number of rounds from a config that the base algorithm is to understand.

    Args:
        config_list: The rules, in which entries may have `prune_iterations`.
        rounds: What was given beside the config, or None.
        keys: The optional keys that the base algorithm declares.

    Returns:
        The rules without `prune_iterations`, and the number of rounds.

    Raises:
        ConfigError: When the rules are wrong, or do not agree on the number.
    """
    given = [(e.where, e.settings.get(ROUNDS_KEY)) for e in parse(config_list, (*keys, ROUNDS_KEY))]
    said = {"rounds": rounds} if rounds is not None else {}
    said |= {f"{where}[{ROUNDS_KEY!r}]": n for where, n in given if n is not None}
    if not said:
        raise ConfigError(
            f"Nothing says how many rounds there are; give rounds=10, or {ROUNDS_KEY!r}: 10 in "
            "config_list[0]."
        )
    first, number = next(iter(said.items()))
    for other, value in said.items():
        if value != number:
            raise ConfigError(
                f"{first} is {number} and {other} is {value}; all layers go through the same "
                "rounds, so both must be equal."
            )
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_ROUNDS:
        raise ConfigError(
            f"{first} is {number!r}; it must be a whole number from 1 to {MOST_ROUNDS}."
        )
    rules = [{k: v for k, v in entry.items() if k != ROUNDS_KEY} for entry in config_list]
    return rules, number

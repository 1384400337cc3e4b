"""What ADMM computes, of tensors or arrays of any framework.

Weights W are trained towards a sparse copy Z of themselves, and U adds up what they miss it by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from prune_core.config import OPTIONAL_KEYS, Key, parse
from prune_core.errors import ConfigError

__all__ = ["ADMM", "DEFAULT_RHO", "GRANULARITIES", "gap", "missed", "rho_of_entries"]

GRANULARITIES = {"fine-grained": "level", "coarse-grained": "l1"}
DEFAULT_RHO = 1e-4


@dataclass(frozen=True, slots=True)
class ADMM:
    """How often Z and U are renewed, and how hard weights are pulled.

    Attributes:
        iterations: How often Z and U are renewed.
        training_epochs: How often the model is trained in between.
        granularity: `"fine-grained"` for `level`, `"coarse-grained"` for `l1`.
        row: The weight ρ of the penalty for entries without `rho`.

    Raises:
        ConfigError: One of them is out of its range.
    """

    iterations: int = 30
    training_epochs: int = 5
    granularity: str = "fine-grained"
    row: float = DEFAULT_RHO

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise ConfigError(
                f"granularity is {self.granularity!r}; it must be one of "
                f"{', '.join(GRANULARITIES)}."
            )
        for name in ("iterations", "training_epochs"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1.")
        if not self.row > 0:
            raise ConfigError(f"row is {self.row!r}; it must be a number above 0.")

    @property
    def algorithm(self) -> str:
        """The one-shot pruner of the granularity."""
        return GRANULARITIES[self.granularity]


def rho_of_entries(
    config_list: Sequence[Mapping[str, Any]], keys: Sequence[str | Key], default: float
) -> tuple[list[dict[str, Any]], dict[int, float]]:
    """Return rules that a one-shot pruner understands, and ρ for each of them.

    Args:
        config_list: The rules, with or without `rho`.
        keys: Further keys of the one-shot pruner.
        default: ρ for rules without.
    """
    entries = parse(config_list, (*keys, OPTIONAL_KEYS["rho"]))
    rho = {entry.index: float(entry.settings.get("rho", default)) for entry in entries}
    return [{k: v for k, v in entry.items() if k != "rho"} for entry in config_list], rho


def missed(u: Any, weight: Any, z: Any) -> Any:
    """Return the next U, which is `U + W − Z`."""
    return u + weight - z


def gap(weight: Any, z: Any) -> float:
    """Return how far weights are from their sparse copy, `‖W − Z‖ / ‖W‖`.

    Example:
        >>> import numpy as np
        >>> gap(np.array([3.0, 4.0]), np.array([0.0, 4.0]))
        0.6
    """
    return _length(weight - z) / max(_length(weight), 1e-12)


def _length(vector: Any) -> float:
    return sqrt(float((vector**2).sum()))

"""One rule per kind of ATen operator; a file per kind."""

from prune_speedup.torch.rules import (
    attention,
    contraction,
    elementwise,
    factory,
    fourier,
    indexing,
    linear_algebra,
    movement,
    normalisation,
    reduction,
    spatial,
)
from prune_speedup.torch.rules.registry import TORCH, Entry, Rule, find_rule, has_rule, rule

__all__ = [
    "TORCH",
    "Entry",
    "Rule",
    "attention",
    "contraction",
    "elementwise",
    "factory",
    "find_rule",
    "fourier",
    "has_rule",
    "indexing",
    "linear_algebra",
    "movement",
    "normalisation",
    "reduction",
    "rule",
    "spatial",
]

"""How older releases called pruners that look at a model once; see `prune_core.compat`."""

from prune_core.compat import Older, order
from prune_core.pruning.older_names import ANY_PRUNER

__all__ = ["MODES", "ONE_SHOT"]

MODES = Older(
    flags={"dependency_aware": ("mode", "dependency_aware"), "global_sort": ("mode", "global")}
)
"""What chose a mode before there was `mode`."""

ONE_SHOT = (
    MODES
    | ANY_PRUNER
    | Older(
        orders=[
            order("optimizer", "dependency_aware", "dummy_input"),
            order("dependency_aware", "dummy_input"),
        ]
    )
)
"""Pruners that look at a model once, and need nothing but its weights."""

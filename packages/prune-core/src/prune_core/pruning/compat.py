"""How older releases called the pruners of this package, as tables; see `prune_core.compat`."""

from prune_core.compat import NoEffect, Older, order

__all__ = ["ANY_PRUNER", "MODES", "ONE_SHOT"]

ANY_PRUNER = Older(orders=[order("optimizer")], ignored={"optimizer": NoEffect()})
"""The first releases gave every pruner the optimizer, which goes on working without being told."""

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

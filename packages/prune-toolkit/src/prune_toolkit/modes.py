"""How scores become masks: a mode is the name of an allocator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from prune_core.errors import ConfigError, did_you_mean
from prune_core.pruning.pruner import Pruner
from prune_core.registry import entries
from prune_toolkit.allocate import SparsityAllocator
from prune_toolkit.parts import make_part

__all__ = ["allocator_for", "chosen_mode"]

# What modes were called before allocators had names.
_OLDER = {"balance": "bank"}
_OURS = ("prune-toolkit", "prune-speedup")


def chosen_mode(pruner: Pruner, mode: str, known: Sequence[str]) -> str:
    """Return the mode that was asked for.

    Besides those that an algorithm names itself, the allocators of other plugins are modes of it.

    Raises:
        ConfigError: When the pruner has no such mode.
    """
    if mode in known or mode in _foreign():
        return mode
    raise ConfigError(
        f"mode is {mode!r}; the modes of {type(pruner).__name__} are "
        f"{', '.join(map(repr, known))}.{did_you_mean(mode, known)}"
    )


def _foreign() -> set[str]:
    """Return the names of allocators that other distributions register, bare and qualified."""
    found = [entry for entry in entries("allocator") if entry.plugin.distribution not in _OURS]
    return {name for entry in found for name in (entry.name, entry.qualified_name)}


def allocator_for(
    pruner: Pruner,
    mode: str,
    *,
    channels: bool,
    transform: Callable[[Tensor], Tensor] | None = None,
    continuous_mask: bool = True,
    balance_gran: Sequence[int] | None = None,
    dummy_input: Any = None,
    **more: Any,
) -> SparsityAllocator:
    """Return the allocator that a mode stands for.

    Args:
        pruner: The pruner that will use it.
        mode: The name of a registered allocator, or `"balance"`, the older name of `"bank"`.
        channels: Whether there is a score for each output channel, or one for each weight.
        transform: Applied to the scores before they are compared.
        continuous_mask: Whether what is masked stays masked.
        balance_gran: Shape of the blocks of `"balance"`.
        dummy_input: What the model is traced with for `"dependency_aware"`.
        **more: What else an allocator may want to be told.
    """
    if mode == "balance" and balance_gran is None:
        raise ConfigError(
            "mode is 'balance' and balance_gran is missing; give the shape of a block, such as "
            "balance_gran=[1, 4]."
        )
    name = _OLDER.get(mode, mode)
    given = {
        "channels": channels,
        "transform": transform,
        "continuous_mask": continuous_mask,
        "balance_gran": balance_gran,
        "dummy_input": dummy_input,
        **more,
    }
    # Ours are meant by their bare names, whoever else registers one of the same.
    ours = (e.qualified_name for e in entries("allocator") if e.plugin.distribution in _OURS)
    meant = next((qualified for qualified in ours if qualified.endswith(f":{name}")), name)
    found: SparsityAllocator = make_part("allocator", meant, pruner, given)
    return found

"""How scores become masks: the modes that pruners share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from prune_core.errors import ConfigError, did_you_mean
from prune_core.pruning.allocate import (
    BankSparsityAllocator,
    GlobalSparsityAllocator,
    NormalSparsityAllocator,
    SparsityAllocator,
)
from prune_core.pruning.pruner import Pruner
from prune_core.registry import get_engine

__all__ = ["allocator_for", "chosen_mode"]


def chosen_mode(pruner: Pruner, mode: str, known: Sequence[str]) -> str:
    """Return the mode that was asked for.

    Raises:
        ConfigError: When the pruner has no such mode.
    """
    if mode not in known:
        raise ConfigError(
            f"mode is {mode!r}; the modes of {type(pruner).__name__} are "
            f"{', '.join(map(repr, known))}.{did_you_mean(mode, known)}"
        )
    return mode


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
        mode: `"normal"`, `"global"`, `"balance"` or `"dependency_aware"`.
        channels: Whether there is a score for each output channel, or one for each weight.
        transform: Applied to the scores before they are compared.
        continuous_mask: Whether what is masked stays masked.
        balance_gran: Shape of the blocks of `"balance"`.
        dummy_input: What the model is traced with for `"dependency_aware"`.
        **more: What else a dependency-aware allocator may be told.
    """
    if mode == "dependency_aware":
        engine = get_engine("torch", wanted="the mode 'dependency_aware'")
        allocator: SparsityAllocator = engine.DependencyAwareAllocator(
            pruner, dummy_input, continuous_mask, **more
        )
        return allocator
    if mode == "balance":
        if balance_gran is None:
            raise ConfigError(
                "mode is 'balance' and balance_gran is missing; give the shape of a block, such "
                "as balance_gran=[1, 4]."
            )
        return BankSparsityAllocator(pruner, balance_gran, continuous_mask)
    ranking = GlobalSparsityAllocator if mode == "global" else NormalSparsityAllocator
    return ranking(pruner, continuous_mask=continuous_mask, channels=channels, transform=transform)

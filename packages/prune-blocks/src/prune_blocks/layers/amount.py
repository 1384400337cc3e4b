"""How many blocks go, said as a count, as a share, or as what may be left of the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prune_core.errors import ConfigError, did_you_mean, shown

__all__ = ["Amount", "amount_of"]

BUDGETS = ("parameters", "flops")


class Costs(Protocol):
    """What a block has and does."""

    @property
    def parameters(self) -> int: ...
    @property
    def flops(self) -> int: ...


class Amount:
    """Says of blocks whether enough of them go.

    Args:
        count: How many go; None where a budget says it.
        target: What may be left, such as `{"parameters": 0.7}`.
        whole: What the whole model has and does.

    Example:
        >>> from types import SimpleNamespace
        >>> model = SimpleNamespace(parameters=100, flops=1000)
        >>> block = SimpleNamespace(parameters=20, flops=300)
        >>> amount = Amount(None, {"flops": 0.5}, model)
        >>> amount.met_by([block]), amount.met_by([block, block])
        (False, True)
    """

    def __init__(self, count: int | None, target: Mapping[str, float], whole: Costs) -> None:
        self.count, self.target, self._whole = count, target, whole

    def left(self, gone: Sequence[Costs]) -> dict[str, float]:
        """Return what share of the model is left without some blocks."""
        return {
            name: 1 - sum(getattr(each, name) for each in gone) / max(1, getattr(self._whole, name))
            for name in BUDGETS
        }

    def met_by(self, gone: Sequence[Costs]) -> bool:
        """Whether enough goes with these."""
        if self.count is not None:
            return len(gone) >= self.count
        left = self.left(gone)
        return all(left[name] <= share for name, share in self.target.items())

    def refuse(self, most: Sequence[Costs], candidates: int) -> ConfigError:
        """Return the error for what cannot be met even with the most that can go."""
        if self.count is not None:
            return ConfigError(
                f"{self.count} blocks are to go, and of {candidates} that can be taken out at "
                f"most {len(most)} may go, so that one is left."
            )
        left = self.left(most)
        name = next(name for name, share in self.target.items() if left[name] > share)
        return ConfigError(
            f"target[{name!r}] is {self.target[name]}, and with all {len(most)} blocks gone that "
            f"may go {left[name]:.3f} is left. Ask for less, or prune channels afterwards: "
            "prune_core.prune(model, 'l1', target=..., example_inputs=x)."
        )


def amount_of(
    sparsity: float | None,
    count: int | None,
    target: Mapping[str, float] | None,
    candidates: int,
    whole: Any,
) -> Amount:
    """Understand how much is to go.

    Raises:
        ConfigError: It is said not at all, twice, or in a way that cannot be.
    """
    if [sparsity, count, target].count(None) != 2:
        raise ConfigError(
            "Say how much is to go, once: count=3 takes three blocks out, sparsity=0.25 a quarter "
            "of them, and target={'parameters': 0.7} as few as leave 70 % of the parameters."
        )
    if count is not None:
        if type(count) is not int or count < 1:
            raise ConfigError(f"count is {shown(count)}; it must be a whole number of at least 1.")
        return Amount(count, {}, whole)
    if sparsity is not None:
        if isinstance(sparsity, bool) or not isinstance(sparsity, int | float):
            raise ConfigError(f"sparsity is {shown(sparsity)}; it must be a number such as 0.25.")
        if not 0 < sparsity < 1:
            raise ConfigError(
                f"sparsity is {sparsity}; it must be the share of blocks to take out, greater than "
                "0 and less than 1."
            )
        if not int(sparsity * candidates):
            raise ConfigError(
                f"sparsity is {sparsity}, which of {candidates} blocks is less than one. Ask for "
                f"at least {1 / candidates:.2f}, or say count=1."
            )
        return Amount(int(sparsity * candidates + 1e-9), {}, whole)
    if not isinstance(target, Mapping) or not target:
        raise ConfigError(
            f"target is {shown(target)}; it must be a dict such as {{'parameters': 0.7}}, what may "
            f"be left of {' and '.join(BUDGETS)}."
        )
    for name, share in target.items():
        if name not in BUDGETS:
            raise ConfigError(
                f"target has {name!r}; for blocks a budget is one of {', '.join(BUDGETS)}."
                f"{did_you_mean(name, BUDGETS)}"
            )
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ConfigError(
                f"target[{name!r}] is {shown(share)}; it must be what may be left, greater than 0 "
                "and less than 1."
            )
    return Amount(None, target, whole)

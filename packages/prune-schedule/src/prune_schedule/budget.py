"""Sparsities of layers that together keep to a budget of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prune_core import ConfigError

__all__ = ["Budget", "WeightBudget", "fitted"]

Sparsities = dict[str, float]


class Budget(Protocol):
    """What may be left of a model, and which sparsities leave no more.

    Attributes:
        target: What may be left, as a ratio, of each kind of cost.
        groups: Layers that get the same sparsity, because they can only lose channels together.
    """

    target: dict[str, float]
    groups: list[list[str]]

    def left(self, sparsities: Mapping[str, float]) -> dict[str, float]:
        """Return what sparsities leave of each kind of cost."""

    def fitted(
        self,
        shares: Mapping[str, float],
        floors: Mapping[str, float],
        progress: float = 1.0,
    ) -> Sparsities:
        """Return sparsities in the proportion of `shares` that meet the target.

        Args:
            shares: How much each layer is to lose in relation to the others; not negative.
            floors: The least that each layer has to lose.
            progress: How much may go by now: no more than this ratio of what there was, or the
                target, whichever leaves more.
        """

    def reduced(
        self, sparsities: Mapping[str, float], group: Sequence[str], kind: str, wanted: float
    ) -> Sparsities | None:
        """Prune one group just so much more that no more than `wanted` of a kind is left.

        Returns:
            The sparsities of all layers, or None where the group cannot bring that about.
        """


class WeightBudget:
    """Each entry of a `config_list` names the ratio that its layers lose together.

    Args:
        entries: For each entry its layers, and that ratio.
        sizes: The number of weights of each layer.
        caps: The most that each layer may lose.
        groups: Layers that get the same sparsity; one that is in none stays dense. Each layer by
            itself unless given.
    """

    def __init__(
        self,
        entries: Sequence[tuple[list[str], float]],
        sizes: Mapping[str, int],
        caps: Mapping[str, float],
        groups: Sequence[list[str]] | None = None,
    ) -> None:
        self._entries = {f"entry {place}": entry for place, entry in enumerate(entries)}
        self.target = {kind: 1.0 - total for kind, (_, total) in self._entries.items()}
        self.groups = [[name] for name in sizes] if groups is None else list(groups)
        self._sizes = sizes
        self._caps = dict.fromkeys(sizes, 0.0) | _alike(self.groups, caps, min)

    def left(self, sparsities: Mapping[str, float]) -> dict[str, float]:
        """Return the ratio of the weights of each entry that is left."""
        return {
            kind: 1.0 - _count({n: sparsities[n] for n in names}, self._sizes) / self._all(names)
            for kind, (names, _) in self._entries.items()
        }

    def fitted(
        self,
        shares: Mapping[str, float],
        floors: Mapping[str, float],
        progress: float = 1.0,
    ) -> Sparsities:
        """Return sparsities in the proportion of `shares` that meet the target."""
        shares = dict.fromkeys(self._sizes, 0.0) | _alike(self.groups, shares, max)
        floors = dict.fromkeys(self._sizes, 0.0) | _alike(self.groups, floors, max)
        plan: Sparsities = {}
        for names, total in self._entries.values():
            plan |= fitted(
                {name: shares[name] for name in names},
                self._sizes,
                min(total, progress),
                {name: self._caps[name] for name in names},
                {name: floors[name] for name in names},
            )
        return {name: plan[name] for name in self._sizes}

    def reduced(
        self, sparsities: Mapping[str, float], group: Sequence[str], kind: str, wanted: float
    ) -> Sparsities | None:
        """Prune one group just so much more that no more than `wanted` of an entry is left."""
        names, _ = self._entries[kind]
        here = [name for name in group if name in names]
        if not here:
            return None
        more = (self.left(sparsities)[kind] - wanted) * self._all(names) / self._all(here)
        sparsity = round(max(sparsities[name] for name in group) + more, 12)
        if sparsity > min(self._caps[name] for name in group):
            return None
        return {**sparsities, **dict.fromkeys(group, sparsity)}

    def _all(self, names: Sequence[str]) -> int:
        return sum(self._sizes[name] for name in names)


def _alike(
    groups: Sequence[Sequence[str]],
    values: Mapping[str, float],
    choose: Callable[[Iterable[float]], float],
) -> dict[str, float]:
    """Give all layers of a group the value that is chosen from theirs."""
    return {name: choose(values[other] for other in group) for group in groups for name in group}


def fitted(
    shares: Mapping[str, float],
    sizes: Mapping[str, int],
    total: float,
    caps: Mapping[str, float],
    floors: Mapping[str, float] | None = None,
) -> Sparsities:
    """Return sparsities in the proportion of `shares` that prune `total` of all weights.

    `s_i = clip(λ · share_i, floor_i, cap_i)` with the λ for which `Σ s_i · n_i = total · Σ n_i`.

    Args:
        shares: How much each layer is to lose in relation to the others; not negative.
        sizes: The number of weights of each layer.
        total: The ratio of all weights to prune.
        caps: The most that each layer may lose.
        floors: The least that each layer has to lose; nothing unless given.

    Raises:
        ConfigError: When the caps do not let so much go.

    Example:
        >>> fitted({"a": 1, "b": 3}, {"a": 100, "b": 100}, 0.5, {"a": 0.9, "b": 0.6})
        {'a': 0.4, 'b': 0.6}
    """
    least = dict.fromkeys(shares, 0.0) | dict(floors or {})
    everything = sum(sizes[name] for name in shares)
    wanted = total * everything
    most = sum(caps[name] * sizes[name] for name in shares)
    if most < wanted * (1 - 1e-9):
        raise ConfigError(
            f"The layers may lose {most / everything:.1%} of their weights together, and "
            f"{total:.1%} is asked for; raise 'max_sparsity_per_layer'."
        )
    # A layer without a share moves only when all others are at their caps.
    weights = {name: max(share, 1e-9) for name, share in shares.items()}

    def pruned(scale: float) -> dict[str, float]:
        return {n: min(max(scale * w, least[n]), caps[n]) for n, w in weights.items()}

    # The number of pruned weights grows with the scale, linearly between the scales at which a
    # layer leaves its floor or reaches its cap; the answer lies between two of those.
    corners = sorted({bound[n] / w for n, w in weights.items() for bound in (least, caps)})
    low = 0.0
    for high in corners:
        if _count(pruned(high), sizes) >= wanted:
            below, above = _count(pruned(low), sizes), _count(pruned(high), sizes)
            part = (wanted - below) / (above - below) if above > below else 0.0
            found = pruned(low + max(0.0, part) * (high - low))
            return {name: round(sparsity, 12) for name, sparsity in found.items()}
        low = high
    return pruned(low)


def _count(sparsities: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    return sum(sparsity * sizes[name] for name, sparsity in sparsities.items())

"""Budgets of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prune_core.amount import number_to_prune
from prune_core.errors import ConfigError
from prune_speedup.search.pieces import Piece
from prune_speedup.search.plans import Sparsities

__all__ = ["Budget", "WeightBudget"]

# As often as a number between 0 and 1 can be halved before the next one is its neighbour.
HALVINGS = 60


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

    def shortfall(self, sparsities: Mapping[str, float]) -> str | None:
        """Say what the masks in force leave more than the target, or None if they meet it."""


class WeightBudget:
    """Each entry of a `config_list` names the ratio that its layers lose together.

    Masks are made of whole pieces, so a plan asks for as many of them as reach that ratio, and for
    no piece that could stay.

    Args:
        entries: For each entry its layers, and that ratio.
        sizes: The number of weights of each layer.
        caps: The most that each layer may lose.
        pieces: What is masked as a whole; single weights unless given.
        groups: Layers that get the same sparsity; one that is in none stays dense. Each layer by
            itself unless given.
    """

    def __init__(
        self,
        entries: Sequence[tuple[list[str], float]],
        sizes: Mapping[str, int],
        caps: Mapping[str, float],
        pieces: Sequence[Piece] | None = None,
        groups: Sequence[list[str]] | None = None,
    ) -> None:
        self._sizes = sizes
        self._entries = {f"entry {place}": entry for place, entry in enumerate(entries)}
        self.target = {
            kind: 1.0 - number_to_prune(total, self._all(names)) / self._all(names)
            for kind, (names, total) in self._entries.items()
        }
        self.groups = [[name] for name in sizes] if groups is None else list(groups)
        self._caps = dict.fromkeys(sizes, 0.0) | _alike(self.groups, caps, min)
        if pieces is None:
            pieces = [Piece(size, {name: 1}) for name, size in sizes.items()]
        self._pieces = list(pieces)

    def left(self, sparsities: Mapping[str, float]) -> dict[str, float]:
        """Return the ratio of the weights of each entry that is left."""
        return {
            kind: 1.0 - self._count(self._pieces, sparsities, names) / self._all(names)
            for kind, (names, _) in self._entries.items()
        }

    def _count(
        self, pieces: Sequence[Piece], sparsities: Mapping[str, float], names: Sequence[str]
    ) -> int:
        """Return how many weights of some layers are masked by some pieces."""
        return sum(
            piece.masked(sparsities) * sum(piece.weights.get(name, 0) for name in names)
            for piece in pieces
        )

    def fitted(
        self,
        shares: Mapping[str, float],
        floors: Mapping[str, float],
        progress: float = 1.0,
    ) -> Sparsities:
        """Return sparsities in the proportion of `shares` that meet the target."""
        shares = dict.fromkeys(self._sizes, 0.0) | _alike(self.groups, shares, max)
        plan = dict.fromkeys(self._sizes, 0.0) | _alike(self.groups, floors, max)
        for kind, (names, total) in self._entries.items():
            wanted = number_to_prune(min(total, progress), self._all(names))
            plan = self._fitted(plan, shares, kind, wanted)
        return {name: plan[name] for name in self._sizes}

    def _fitted(
        self, floors: Sparsities, shares: Mapping[str, float], kind: str, wanted: int
    ) -> Sparsities:
        """Raise the sparsities of one entry's layers, by their shares, until enough is masked.

        `s_i = clip(λ · share_i, floor_i, cap_i)` with the least λ that is enough. Of layers that
        get to their next piece at the same λ, only so many do as are needed.
        """
        names, total = self._entries[kind]
        groups = [group for group in self.groups if any(name in names for name in group)]
        # A layer without a share moves only when all others are at their caps.
        weights = {name: max(shares[name], 1e-9) for group in groups for name in group}

        def scaled(scale: float) -> Sparsities:
            return floors | {
                name: max(floors[name], min(scale * weight, self._caps[name]))
                for name, weight in weights.items()
            }

        def enough(sparsities: Sparsities) -> bool:
            return self._count(self._pieces, sparsities, names) >= wanted

        high = max((self._caps[name] / weight for name, weight in weights.items()), default=0.0)
        if not enough(scaled(high)):
            raise self._refusal(scaled(high), kind, total)
        low = 0.0
        if enough(scaled(low)):
            return self._simplest(scaled(low))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if enough(scaled(middle)) else (middle, high)
        below, plan = scaled(low), scaled(high)
        for group in sorted(groups, key=self._all, reverse=True):
            fewer = plan | {name: below[name] for name in group}
            if enough(fewer):
                plan = fewer
        return self._simplest(plan)

    def _simplest(self, plan: Sparsities) -> Sparsities:
        """Return the simplest ratios that make the same masks."""
        for group in self.groups:
            pieces = [piece for piece in self._pieces if set(piece.weights) <= set(group)]
            now = [piece.masked(plan) for piece in pieces]
            exact = max((n / piece.parts for n, piece in zip(now, pieces, strict=True)), default=0)
            for ratio in (round(plan[group[0]], 6), exact):
                if ratio > min(self._caps[name] for name in group):
                    continue
                simpler = plan | dict.fromkeys(group, ratio)
                if [piece.masked(simpler) for piece in pieces] == now:
                    plan = simpler
                    break
        return plan

    def _refusal(self, most: Sparsities, kind: str, total: float) -> ConfigError:
        names, _ = self._entries[kind]
        ratio = self._count(self._pieces, most, names) / self._all(names)
        return ConfigError(
            f"The layers may lose {ratio:.1%} of their weights together, in whole channels where "
            f"channels are pruned, and {total:.1%} is asked for; raise 'max_sparsity_per_layer', "
            "let more layers be pruned, or ask for less."
        )

    def reduced(
        self, sparsities: Mapping[str, float], group: Sequence[str], kind: str, wanted: float
    ) -> Sparsities | None:
        """Prune one group just so much more that no more than `wanted` of an entry is left."""
        names, _ = self._entries[kind]
        cap = min(self._caps[name] for name in group)
        if not set(group) & set(names):
            return None
        here = [piece for piece in self._pieces if set(piece.weights) & set(group)]
        rest = [piece for piece in self._pieces if piece not in here]
        needed = self._all(names) * (1.0 - wanted) - self._count(rest, sparsities, names)

        def pruned(sparsity: float) -> Sparsities:
            return {**sparsities, **dict.fromkeys(group, sparsity)}

        def enough(sparsity: float) -> bool:
            return self._count(here, pruned(sparsity), names) >= needed - 1e-6

        low, high = max(sparsities[name] for name in group), cap
        if low >= cap or not enough(cap):
            return None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return self._simplest(pruned(high))

    def shortfall(self, sparsities: Mapping[str, float]) -> str | None:
        """Say what masks of these sparsities, as found in force, leave more than the target."""
        for kind, (names, total) in self._entries.items():
            masked = sum(sparsities[name] * self._sizes[name] for name in names)
            if masked < self._all(names) * (1.0 - self.target[kind]) - 0.5:
                reached = masked / self._all(names)
                more = f" of {kind}" if len(self._entries) > 1 else ""
                masked_now = f"{reached:.1%} of the weights{more} are masked"
                return f"{masked_now}, where {total:.1%} was asked for"
        return None

    def _all(self, names: Sequence[str]) -> int:
        return sum(self._sizes[name] for name in names)


def _alike(
    groups: Sequence[Sequence[str]],
    values: Mapping[str, float],
    choose: Callable[[Iterable[float]], float],
) -> dict[str, float]:
    """Give all layers of a group the value that is chosen from theirs."""
    return {name: choose(values[other] for other in group) for group in groups for name in group}

"""Sparsities of layers that together keep to a budget."""

from __future__ import annotations

from collections.abc import Mapping

from prune_core import ConfigError

__all__ = ["fitted"]


def fitted(
    shares: Mapping[str, float],
    sizes: Mapping[str, int],
    total: float,
    caps: Mapping[str, float],
    floors: Mapping[str, float] | None = None,
) -> dict[str, float]:
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
    wanted = total * sum(sizes[name] for name in shares)
    most = sum(caps[name] * sizes[name] for name in shares)
    if most < wanted * (1 - 1e-9):
        raise ConfigError(
            f"The layers may lose {most / sum(sizes.values()):.1%} of their weights together, and "
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

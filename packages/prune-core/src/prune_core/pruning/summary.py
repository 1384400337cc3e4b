"""Counting what the masks of wrapped modules leave."""

from __future__ import annotations

from collections.abc import Iterable

from prune_core.masking import PrunerModuleWrapper
from prune_core.summary import Row, Summary

__all__ = ["Row", "Summary", "summarise"]


def summarise(wrappers: Iterable[PrunerModuleWrapper]) -> Summary:
    """Count what the masks of wrappers leave."""
    return Summary(tuple(_row(wrapper) for wrapper in wrappers))


def _row(wrapper: PrunerModuleWrapper) -> Row:
    counts = {
        name: (
            total := wrapper.parameter(name).numel(),
            total - wrapper.masked_count(name),
        )
        for name in wrapper.masked_names
    }
    total, left = counts[wrapper.target]
    return Row(
        layer=wrapper.name,
        type=type(wrapper.module).__name__,
        shape=tuple(wrapper.parameter(wrapper.target).shape),
        asked=wrapper.config.get("sparsity"),
        reached=1 - left / total if total else 0.0,
        left=sum(left for _, left in counts.values()),
        total=sum(total for total, _ in counts.values()),
    )

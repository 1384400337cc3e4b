"""What the shell offers where a registered name is to be typed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prune_core.registry import entries

__all__ = ["beginning", "names_of_kind", "registered_names"]


def beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    """Return the words that begin so."""
    return [word for word in words if word.startswith(incomplete)]


def registered_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer every registered name; with a colon in it, those qualified by a distribution."""
    yield from names_of_kind(None, incomplete)


def names_of_kind(kind: str | None, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the names of one kind, or of all, with what they stand for."""
    qualified = ":" in incomplete
    offered = {
        (entry.qualified_name if qualified else entry.name): entry.reference.summary
        for entry in entries(kind)
    }
    yield from ((name, said) for name, said in offered.items() if name.startswith(incomplete))

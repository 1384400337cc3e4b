"""Sections of the page that plugins bring."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from prune_core.errors import PluginWarning
from prune_core.registry import entries
from prune_report.document import Document
from prune_report.html import Html, element

__all__ = ["from_plugins"]


def from_plugins(document: Document) -> Iterator[tuple[str, Html]]:
    """Yield the title and the body of each; one that fails is left out, and said by name."""
    for entry in entries("report_section"):
        try:
            body = entry.load()(document)
        except Exception as error:
            warnings.warn(
                f"The report goes on without the section {entry.name!r} of "
                f"{entry.plugin.distribution}: {type(error).__name__}: {error}",
                PluginWarning,
                stacklevel=2,
            )
            continue
        if body:
            yield (
                entry.reference.summary or entry.name,
                body if isinstance(body, Html) else element("p", body),
            )

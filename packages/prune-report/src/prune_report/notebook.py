"""What a notebook shows for a report of an engine."""

from __future__ import annotations

from typing import Any

from prune_report.building import from_shrink
from prune_report.whole_page import fragment

__all__ = ["as_html"]


def as_html(report: Any) -> str:
    """Return the HTML that stands below a cell that ends in a report.

    Args:
        report: A report of `shrink`, or a document.
    """
    return fragment(from_shrink(report))

"""What a notebook shows for a report: the door to prune-report, and a small table without it."""

from __future__ import annotations

from html import escape
from typing import Any

__all__ = ["as_html"]


def as_html(report: Any) -> str:
    """Return the HTML of a report of an engine.

    Args:
        report: What `shrink` or `remove_blocks` returned.
    """
    try:
        import prune_report
    except ModuleNotFoundError as error:
        if error.name != "prune_report":
            raise
        return _table(report)
    html: str = prune_report.as_html(report)
    return html


def _table(report: Any) -> str:
    rows = []
    for label in ("parameters", "flops", "bytes"):
        before, after = getattr(report, label, (0, 0))
        if before:
            cells = (label, f"{before:,}", f"{after:,}", f"{after / before:.1%}")
            rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in ("", "before", "after", "left"))
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        "<p>For the whole report: <code>pip install prune-report</code>; "
        "<code>print(report)</code> says more as text.</p>"
    )

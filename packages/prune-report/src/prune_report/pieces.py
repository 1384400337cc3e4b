"""Parts of which the sections of a page are made."""

from __future__ import annotations

from collections.abc import Sequence

from prune_report.document import Layer
from prune_report.html import Html, element, join

__all__ = ["breakable", "few", "folded", "key", "layer_name", "table", "together"]

SHOWN = 40
"""How many rows a picture shows before the others are folded away."""


def together(text: str) -> str:
    """A number and its unit, which stay on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def layer_name(layer: Layer) -> Html:
    """The name of a layer and its class."""
    return element(
        "span",
        element("b", breakable(layer.name or "(the model)")),
        " ",
        element("i", layer.type),
        class_="pr-name",
    )


def breakable(name: str) -> Html:
    """Let a long dotted name break after its dots."""
    return join(name.split("."), between=".<wbr>")


def key(class_: str, text: str) -> Html:
    """What a colour means."""
    return element("span", element("span", class_=f"pr-key {class_}"), text, class_="pr-keyed")


def few(rows: list[Html], what: str) -> list[Html]:
    """The first rows, and the others folded away."""
    shown = [element("div", *rows[:SHOWN], class_="pr-rows")]
    if others := rows[SHOWN:]:
        shown.append(
            folded(f"{len(others)} more {what}", element("div", *others, class_="pr-rows"))
        )
    return shown


def folded(summary: str, body: object) -> Html:
    """Something that is shown when it is asked for."""
    return element("details", element("summary", summary), body)


def table(head: list[str], rows: Sequence[Sequence[object]]) -> Html:
    """A table; cells that are `<th>` stay so."""
    body = [element("tr", *(c if _is_head(c) else element("td", c) for c in row)) for row in rows]
    drawn = element(
        "table",
        element("thead", element("tr", *(element("th", each, scope="col") for each in head))),
        element("tbody", *body),
    )
    # A wide table scrolls by itself, and not the page with it.
    return element("div", drawn, class_="pr-scroll", tabindex=0, role="region", aria_label=head[0])


def _is_head(cell: object) -> bool:
    return isinstance(cell, Html) and cell.startswith("<th")

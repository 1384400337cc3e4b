"""Put HTML and SVG together so that nothing that comes from a name can be markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["Html", "element", "join"]

VOID = frozenset({"br", "hr", "img", "meta", "link"})

Child = object
"""Text, which is escaped; `Html`, which is not; or None, which is left out."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, /, *children: Child, **attributes: object) -> Html:
    """Return an element.

    Args:
        name: Of the element.
        *children: What it holds; whatever is not `Html` is escaped.
        **attributes: A trailing underscore is dropped and others become hyphens: `class_`,
            `aria_label`. Those that are None are left out.

    >>> print(element("p", "a < b", class_="note"))
    <p class="note">a &lt; b</p>
    >>> print(element("a", "x", href='"><script>'))
    <a href="&quot;&gt;&lt;script&gt;">x</a>
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{join(children)}</{name}>")


def join(children: Iterable[Child], between: str = "") -> Html:
    """Return children one after the other."""
    return Html(between.join(_markup(child) for child in children if child is not None))


def _markup(child: Child) -> str:
    return child if isinstance(child, Html) else escape(str(child))

"""The page that a person looks at: one file that needs nothing else."""

from __future__ import annotations

from importlib.resources import files

from prune_report.document import Document
from prune_report.headline import header, notes, proof_banner, tiles
from prune_report.html import Html, element
from prune_report.pieces import folded
from prune_report.plugin_sections import from_plugins
from prune_report.sections import SECTIONS, architecture, stayed, whole

__all__ = ["fragment", "page"]


def page(document: Document) -> str:
    """Return the whole page.

    Args:
        document: What happened to the model.
    """
    drawn = ((title, draw(document)) for title, draw in SECTIONS)
    found = [(title, body) for title, body in (*drawn, *from_plugins(document)) if body]
    sections = [
        element(
            "section",
            element("h2", title, id=_anchor(title)),
            body,
            class_="pr-section",
            aria_labelledby=_anchor(title),
        )
        for title, body in found
    ]
    contents = element(
        "nav",
        *(element("a", title, href=f"#{_anchor(title)}") for title, _ in found),
        class_="pr-contents",
        aria_label="Contents",
    )
    main = element(
        "main",
        header(document),
        tiles(document),
        proof_banner(document),
        *notes(document),
        contents,
        *sections,
        _footer(document),
        class_="pr pr-page",
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{document.title}, pruned"),
        element("style", Html(_style())),
    )
    return f"<!doctype html>\n{element('html', head, element('body', main), lang='en')}\n"


def fragment(document: Document) -> str:
    """Return what a notebook shows: the headline, the proof, and the layers folded away."""
    folded_away = (
        ("What stayed, and what to do about it", stayed),
        ("What went as a whole", whole),
        ("Layers, before and after", architecture),
    )
    return element(
        "div",
        element("style", Html(_style())),
        tiles(document),
        proof_banner(document),
        *notes(document),
        *(folded(title, body) for title, draw in folded_away if (body := draw(document))),
        class_="pr pr-notebook",
    )


def _style() -> str:
    return files("prune_report").joinpath("style.css").read_text("utf-8")


def _anchor(title: str) -> str:
    return "".join(each if each.isalnum() else "-" for each in title.lower())


def _footer(document: Document) -> Html:
    version = document.versions.get("prune-report", "")
    return element(
        "footer",
        f"Written by prune-report{f' {version}' if version else ''}. The numbers behind this page "
        "are in report.json.",
    )

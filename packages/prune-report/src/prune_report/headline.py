"""What stands at the top of a page: names, numbers, and whether the result is proved."""

from __future__ import annotations

from collections.abc import Iterator

from prune_report import wording
from prune_report.document import STAGES, Document, Quality
from prune_report.html import Html, element
from prune_report.pieces import folded, together

__all__ = ["header", "notes", "proof_banner", "tiles"]


def header(document: Document) -> Html:
    """What the report is about."""
    facts = [
        document.algorithm and f"pruned by {document.algorithm}",
        document.framework,
        document.created.replace("T", " ").replace("+00:00", " UTC"),
    ]
    return element(
        "header",
        element("p", "Pruning report", class_="pr-kicker"),
        element("h1", document.title),
        element("p", " · ".join(fact for fact in facts if fact), class_="pr-facts"),
    )


def tiles(document: Document) -> Html:
    """The numbers that count, each before and after."""
    shown = [
        element(
            "div",
            element("span", figure.label, class_="pr-label"),
            element(
                "span",
                "no change" if figure.left == 1 else _less(figure.left, figure.doubtful),
                class_="pr-big pr-doubtful" if figure.doubtful else "pr-big",
            ),
            element(
                "span", together(figure.before), " → ", together(figure.after),
                class_="pr-from-to",
            ),
            element("span", figure.note, class_="pr-note") if figure.note else None,
            class_="pr-tile",
        )
        for figure in wording.figures(document)
    ]  # fmt: skip
    shown += [_quality_tile(quality) for quality in document.quality]
    count = len(shown)
    columns = count if count < 5 else -(-count // 2)
    return element("div", *shown, class_="pr-tiles", style=f"--columns: {columns}")


def _less(left: float | None, doubtful: bool) -> str:
    if left is None:
        return "–"
    change = f"−{wording.fraction(1 - left)}" if left <= 1 else f"+{wording.fraction(left - 1)}"
    return f"{change}?" if doubtful else change


def _quality_tile(quality: Quality) -> Html:
    known = [(stage, v) for stage in STAGES if (v := getattr(quality, stage)) is not None]
    last = known[-1] if known else ("", None)
    first = known[0] if len(known) > 1 else None
    from_to = (
        f"{last[0]} model"
        if first is None
        else f"{last[0]} model; {first[0]} {wording.quality_value(first[1])}"
    )
    return element(
        "div",
        element("span", quality.metric, class_="pr-label"),
        element("span", wording.quality_value(last[1]), class_="pr-big"),
        element("span", from_to, class_="pr-from-to"),
        class_="pr-tile pr-quality",
    )


def proof_banner(document: Document) -> Html:
    """Whether the small model is proved to be the masked one, and on what."""
    proof = document.proof
    if proof is None:
        return element(
            "div",
            element("strong", "Not proved. "),
            "Nobody compared the small model with the masked one.",
            class_="pr-banner pr-warn",
        )
    cases = (
        folded(
            f"Compared on {len(proof.cases)} input{'s' if len(proof.cases) != 1 else ''}",
            element("ul", *(element("li", case) for case in proof.cases)),
        )
        if proof.cases
        else None
    )
    more = []
    if proof.inside:
        more.append(f"{proof.inside:,} results inside of the model were compared as well.")
    if proof.moved:
        more.append(
            f"Taking out constants moved the output by {proof.moved:.1e} of its largest number."
        )
    if proof.uncompared:
        more.append(f"Not looked into: {', '.join(proof.uncompared)}.")
    return element(
        "div",
        element("strong", "Proved: the small model computes what the masked one does. "),
        wording.proof_sentence(proof),
        *(f" {each}" for each in more),
        cases,
        folded(
            "Inputs that the small model does not run on",
            element("ul", *(element("li", each) for each in proof.unfollowed)),
        )
        if proof.unfollowed
        else None,
        class_="pr-banner pr-good",
    )


def notes(document: Document) -> Iterator[Html]:
    """What the reader must not miss."""
    for note in document.notes:
        yield element("div", wording.sentence(note), class_="pr-banner pr-warn")

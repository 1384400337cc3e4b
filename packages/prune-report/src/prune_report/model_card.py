"""A model card: what a model's page on a hub says, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prune_report import wording
from prune_report.document import STAGES, Document

__all__ = ["card"]

MOST_LAYERS = 30


def card(document: Document) -> str:
    """Return a model card.

    Args:
        document: What happened to the model.
    """
    return "\n\n".join(_parts(document)) + "\n"


def _parts(document: Document) -> Iterator[str]:
    yield f"# {_plain(document.title)}, pruned"
    made = f"`{_code(document.model)}`" if document.model else "A model"
    by = f" by {_plain(document.algorithm)}" if document.algorithm else ""
    yield f"{made}, pruned{by} and made smaller with prune."
    rows = [
        [each.label, each.before, each.after,
         "–" if each.left is None else wording.fraction(each.left)]
        for each in wording.figures(document)
    ]  # fmt: skip
    if rows:
        yield _table(["", "before", "after", "left"], rows)
    if notes := [each for each in wording.figures(document) if each.note]:
        yield "\n".join(f"{each.label}: {_plain(each.note)}." for each in notes)
    if document.quality:
        yield "## Quality"
        yield _table(
            ["metric", *STAGES],
            [
                [
                    _plain(each.metric),
                    *(wording.quality_value(getattr(each, stage)) for stage in STAGES),
                ]
                for each in document.quality
            ],
        )
    yield from _proof(document)
    yield from (f"> **Note.** {_plain(wording.sentence(each))}" for each in document.notes)
    if document.loading is not None:
        yield "## How to load it"
        yield _fenced(document.loading.code, "python")
        if document.loading.note:
            yield _plain(document.loading.note)
    yield from _changes(document)
    yield from _stayed(document)
    if document.recipe:
        yield "## Recipe"
        yield _fenced(document.recipe, "yaml")
    if document.versions:
        yield "## Made with"
        yield (
            ", ".join(f"{_plain(name)} {_plain(v)}" for name, v in document.versions.items()) + "."
        )


def _proof(document: Document) -> Iterator[str]:
    yield "## Is it the same model?"
    proof = document.proof
    if proof is None:
        yield "Nobody compared the small model with the masked one."
        return
    yield f"The small model was compared with the masked one. {wording.proof_sentence(proof)}"
    if proof.cases:
        yield "\n".join(["Both ran on:", "", *(f"- {_plain(each)}" for each in proof.cases)])
    if proof.moved:
        yield f"Taking out constants moved the output by {proof.moved:.1e} of its largest number."


def _changes(document: Document) -> Iterator[str]:
    if document.blocks or document.experts:
        yield "## What went as a whole"
        yield "\n".join(
            [f"- {_plain(each.kind)} `{_code(each.name)}`" for each in document.blocks]
            + [
                f"- {each.experts.before - each.experts.after:,.0f} of {each.experts.before:,.0f} "
                f"experts of `{_code(each.name)}`"
                for each in document.experts
            ]
        )
    rows = [
        [
            f"`{_code(each.name)}`",
            _plain(each.type),
            f"{each.outputs.before:,.0f} → {each.outputs.after:,.0f}",
            f"{wording.amount(each.parameters.before)} → {wording.amount(each.parameters.after)}",
        ]
        for each in document.layers
        if each.outputs is not None and each.inputs is not None and each.outputs.left < 1
    ]
    if rows:
        yield "## Layers with fewer channels"
        yield _table(["layer", "type", "channels", "parameters"], rows[:MOST_LAYERS])
        if len(rows) > MOST_LAYERS:
            yield f"And {len(rows) - MOST_LAYERS} more: see report.html."


def _stayed(document: Document) -> Iterator[str]:
    if not document.stayed:
        return
    yield "## What stayed"
    if said := wording.stayed_count(document):
        yield f"{said}."
    yield "\n".join(
        f"- {_plain(wording.sentence(each.cause))}"
        + (f" {_plain(wording.sentence(each.advice))}" if each.advice else "")
        for each in document.stayed
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
                     for row in lines)  # fmt: skip


def _fenced(text: str, language: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _code(text: str) -> str:
    """Text between backticks, which cannot hold one."""
    return " ".join(text.replace("`", "'").split()) or "(the model)"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: names such as `layer_1*` are no emphasis."""
    text = " ".join(text.split())
    return "".join(f"\\{each}" if each in "\\`*_{}[]<>#" else each for each in text)

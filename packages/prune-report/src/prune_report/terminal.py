"""A report in the terminal, in 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.errors import MissingDependencyError
from prune_report import wording
from prune_report.document import STAGES, Document, Layer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["show"]

WIDTH = 80
MOST_LAYERS = 16


def show(document: Document, console: Console | None = None) -> None:
    """Print a report.

    Args:
        document: What to print.
        console: Where; by default standard output, at most 80 columns wide.
    """
    try:
        from rich.console import Console, Group
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "Printing a report needs rich: `pip install 'prune-report[cli]'`."
        ) from None
    if console is None:
        console = Console(highlight=False)
        console.width = min(WIDTH, console.width)
    console.print(Group(*_parts(document)))


def _parts(document: Document) -> list[RenderableType]:
    from rich.text import Text

    head = Text(document.title, style="bold")
    if document.algorithm:
        head.append(f"  pruned by {document.algorithm}", style="not bold dim")
    parts: list[RenderableType] = [head, Text(), _figures(document)]
    if document.quality:
        parts += [Text(), _quality(document)]
    parts += [Text(), _proof(document)]
    for note in document.notes:
        parts.append(Text.assemble(("! ", "bold yellow"), wording.sentence(note)))
    if document.stayed:
        parts += [Text(), *_stayed(document)]
    if layers := _changed(document):
        parts += [Text(), _layers(layers)]
    parts += [
        Text.assemble("- ", (each.kind, "dim"), f" {each.name} is gone")
        for each in document.blocks[:MOST_LAYERS]
    ]
    parts += [
        Text(f"- {each.name}: {each.experts.before:,} → {each.experts.after:,} experts")
        for each in document.experts[:MOST_LAYERS]
    ]
    return parts


def _figures(document: Document) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column()
    for _ in range(3):
        table.add_column(justify="right")
    table.add_column()
    table.add_row("", *(Text(each, style="dim") for each in ("before", "after", "left")), "")
    for each in wording.figures(document):
        left = "–" if each.left is None else wording.fraction(each.left)
        table.add_row(
            each.label,
            each.before,
            Text(each.after, style="bold"),
            Text(left, style="dim" if each.doubtful else ""),
            Text(_blocks(each.left), style="blue"),
        )
    notes = [
        Text(f"{each.label.lower()}: {each.note}", style="yellow" if each.doubtful else "dim")
        for each in wording.figures(document)
        if each.note
    ]
    return Group(table, *notes)


def _blocks(left: float | None, width: int = 20) -> str:
    """A bar of characters: what is left of the whole."""
    if left is None:
        return ""
    full = round(width * min(1.0, left))
    return "█" * full + "░" * (width - full)


def _quality(document: Document) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column()
    for _ in STAGES:
        table.add_column(justify="right")
    table.add_row(Text("quality", style="dim"), *(Text(each, style="dim") for each in STAGES))
    for each in document.quality:
        values = (wording.quality_value(getattr(each, stage)) for stage in STAGES)
        table.add_row(Text(each.metric), *values)
    return table


def _proof(document: Document) -> RenderableType:
    from rich.text import Text

    proof = document.proof
    if proof is None:
        return Text.assemble(("not proved  ", "bold yellow"), "nobody compared the two models")
    text = Text.assemble(("proved  ", "bold green"), wording.proof_sentence(proof))
    if proof.cases:
        inputs = "1 input" if len(proof.cases) == 1 else f"{len(proof.cases)} inputs"
        text.append(f" Compared on {inputs}: {'; '.join(proof.cases)}.", style="dim")
    return text


def _stayed(document: Document) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(wording.stayed_count(document) or "what stayed", style="bold")
    ]
    for each in document.stayed:
        count = f"{each.channels:,} in {wording.brief_names(each)}: " if each.channels else ""
        text = Text.assemble(("- ", "dim"), count, wording.sentence(each.cause))
        if each.advice:
            text.append(f" {wording.sentence(each.advice)}", style="cyan")
        parts.append(text)
    return parts


def _changed(document: Document) -> list[Layer]:
    """Layers with a matrix that have fewer channels now."""
    return [
        each
        for each in document.layers
        if each.outputs is not None and each.inputs is not None and each.outputs.left < 1
    ]


def _layers(layers: list[Layer]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(max_width=40, overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for each in layers[:MOST_LAYERS]:
        assert each.outputs is not None
        table.add_row(
            Text(each.name),
            f"{each.outputs.before:,} → {each.outputs.after:,}",
            Text(_blocks(each.outputs.left), style="blue"),
        )
    more = len(layers) - MOST_LAYERS
    if more > 0:
        return Group(table, Text(f"and {more} more layers with fewer channels", style="dim"))
    return table

"""The page that a person looks at: one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files

from prune_report import wording
from prune_report.charts import Line, bar, channels, lines
from prune_report.document import Document, Layer, Quality
from prune_report.html import Html, element, join

__all__ = ["fragment", "page"]

SHOWN = 40
"""How many layers a picture shows before the others are folded away."""

STAGES = ("dense", "pruned", "small", "recovered")


def page(document: Document) -> str:
    """Return the whole page."""
    found = [(title, body) for title, draw in SECTIONS if (body := draw(document))]
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
        _header(document),
        _tiles(document),
        _proof_banner(document),
        *_notes(document),
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
    stayed = _stayed(document)
    layers = _architecture(document)
    return element(
        "div",
        element("style", Html(_style())),
        _tiles(document),
        _proof_banner(document),
        *_notes(document),
        _folded("What stayed, and what to do about it", stayed) if stayed else None,
        _folded("Layers, before and after", layers) if layers else None,
        _folded("What went as a whole", _whole(document)) if _whole(document) else None,
        class_="pr pr-notebook",
    )


def _style() -> str:
    return files("prune_report").joinpath("style.css").read_text("utf-8")


def _anchor(title: str) -> str:
    return "".join(each if each.isalnum() else "-" for each in title.lower())


# --- above the fold ---------------------------------------------------------------------------


def _header(document: Document) -> Html:
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


def _tiles(document: Document) -> Html:
    tiles = [
        element(
            "div",
            element("span", figure.label, class_="pr-label"),
            element(
                "span",
                "no change" if figure.left == 1 else _less(figure.left, figure.doubtful),
                class_="pr-big pr-doubtful" if figure.doubtful else "pr-big",
            ),
            element(
                "span", _together(figure.before), " → ", _together(figure.after),
                class_="pr-from-to",
            ),
            element("span", figure.note, class_="pr-note") if figure.note else None,
            class_="pr-tile",
        )
        for figure in wording.figures(document)
    ]  # fmt: skip
    tiles += [_quality_tile(quality) for quality in document.quality]
    count = len(tiles)
    columns = count if count < 5 else -(-count // 2)
    return element("div", *tiles, class_="pr-tiles", style=f"--columns: {columns}")


def _together(text: str) -> str:
    """A number and its unit, which stay on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


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


def _proof_banner(document: Document) -> Html:
    proof = document.proof
    if proof is None:
        return element(
            "div",
            element("strong", "Not proved. "),
            "Nobody compared the small model with the masked one.",
            class_="pr-banner pr-warn",
        )
    cases = (
        _folded(
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
        _folded(
            "Inputs that the small model does not run on",
            element("ul", *(element("li", each) for each in proof.unfollowed)),
        )
        if proof.unfollowed
        else None,
        class_="pr-banner pr-good",
    )


def _notes(document: Document) -> Iterator[Html]:
    for note in document.notes:
        yield element("div", wording.sentence(note), class_="pr-banner pr-warn")


# --- sections ---------------------------------------------------------------------------------


def _quality(document: Document) -> Html | None:
    if not document.quality:
        return None
    stages = [
        stage
        for stage in STAGES
        if any(getattr(each, stage) is not None for each in document.quality)
    ]
    return _table(
        ["metric", *stages],
        [
            [
                element("th", _metric(each), scope="row"),
                *(wording.quality_value(getattr(each, stage)) for stage in stages),
            ]
            for each in document.quality
        ],
    )


def _metric(quality: Quality) -> str:
    if quality.higher_is_better is None:
        return quality.metric
    return f"{quality.metric} ({'higher' if quality.higher_is_better else 'lower'} is better)"


def _architecture(document: Document) -> Html | None:
    """Every layer that has a width, as a strip of its channels."""
    drawn = [
        each
        for each in document.layers
        if each.outputs is not None and (each.inputs is not None or not each.type.endswith("Norm"))
        and "Norm" not in each.type
    ]  # fmt: skip
    if not drawn:
        return None
    most = _widest(drawn)
    rows = [_strip(each, most) for each in drawn]
    cut = any(each.outputs.before > most for each in drawn if each.outputs)
    return join(
        (
            element(
                "p",
                "Each row is a layer, as wide as it has output channels. ",
                _key("pr-kept", "kept"),
                _key("pr-gone", "removed"),
                " Layers wider than the widest pruned one are drawn too narrow." if cut else None,
                class_="pr-explained",
            ),
            *_few(rows, "layers"),
        )
    )


def _widest(layers: list[Layer]) -> int:
    """How many channels the whole width stands for.

    That of the widest layer that was pruned: the words that a language model puts out, for one,
    would leave nothing to be seen of all others.
    """
    widths = [(each.outputs.before, each.outputs.after) for each in layers if each.outputs]
    pruned = [before for before, after in widths if before != after]
    return int(max(pruned or [before for before, _ in widths]))


def _strip(layer: Layer, most: int) -> Html:
    assert layer.outputs is not None
    before, after = int(layer.outputs.before), int(layer.outputs.after)
    removed = layer.removed or range(after, before)
    same = before == after
    said = f"{before:,}" if same else f"{before:,} → {after:,}"
    return element(
        "div",
        _name(layer),
        element("span", said, class_="pr-numbers"),
        channels(
            before,
            removed,
            most,
            f"{layer.name}: all {before:,} channels stay"
            if same
            else f"{layer.name}: {after:,} of {before:,} channels stay",
        ),
        class_="pr-row",
    )


def _parameters(document: Document) -> Html | None:
    return _bars(document, "parameters", lambda layer: layer.parameters)


def _flops(document: Document) -> Html | None:
    return _bars(document, "FLOPs", lambda layer: layer.flops)


def _bars(document: Document, what: str, of: Callable[[Layer], object]) -> Html | None:
    """A bar for each layer, leaving out those too small to be seen."""
    changes = [(each, change) for each in document.layers if (change := of(each)) is not None]
    total = sum(change.before for _, change in changes)  # type: ignore[attr-defined]
    seen = [
        (each, change)
        for each, change in changes
        if change.before > 0.002 * total  # type: ignore[attr-defined]
    ]
    if not total or not seen:
        return None
    most = max(change.before for _, change in seen)  # type: ignore[attr-defined]
    rows = [
        element(
            "div",
            _name(layer),
            element("span", _from_to(change.before, change.after), class_="pr-numbers"),  # type: ignore[attr-defined]
            bar(
                change.before,  # type: ignore[attr-defined]
                change.after,  # type: ignore[attr-defined]
                most,
                f"{layer.name}: {wording.amount(change.before)} {what} before, "  # type: ignore[attr-defined]
                f"{wording.amount(change.after)} after",  # type: ignore[attr-defined]
            ),
            class_="pr-row",
        )
        for layer, change in seen
    ]
    others = len(document.layers) - len(seen)
    return join(
        (
            element(
                "p",
                _key("pr-kept", "after"),
                _key("pr-gone", "removed"),
                f" {others} layers with less than 0.2 % of the {what} are not drawn."
                if others
                else None,
                class_="pr-explained",
            ),
            *_few(rows, "layers"),
        )
    )


def _from_to(before: float, after: float) -> str:
    if before == after:
        return wording.amount(before)
    return f"{wording.amount(before)} → {wording.amount(after)}"


def _whole(document: Document) -> Html | None:
    """Blocks and experts that went."""
    parts = []
    if document.blocks:
        parts.append(
            _table(
                ["block", "kind", "parameters", "FLOPs"],
                [
                    [
                        element("th", each.name, scope="row"),
                        each.kind,
                        wording.amount(each.parameters),
                        "–" if each.flops is None else wording.amount(each.flops),
                    ]
                    for each in document.blocks
                ],
            )
        )
    if document.experts:
        most = max(int(each.experts.before) for each in document.experts)
        rows = [
            element(
                "div",
                element("span", element("b", each.name or "the model"), class_="pr-name"),
                element(
                    "span",
                    f"{each.experts.before:,} → {each.experts.after:,} experts",
                    class_="pr-numbers",
                ),
                channels(
                    int(each.experts.before),
                    each.removed,
                    most,
                    f"{each.name}: {each.experts.after} of {each.experts.before} experts stay",
                ),
                class_="pr-row",
            )
            for each in document.experts
        ]
        parts += _few(rows, "mixtures")
    return join(parts) if parts else None


def _stayed(document: Document) -> Html | None:
    """By cause, each with the one thing to do about it."""
    if not document.stayed:
        return None
    said = wording.stayed_count(document)
    most = max(each.channels for each in document.stayed)
    items = [
        element(
            "li",
            element("p", wording.sentence(each.cause), class_="pr-cause"),
            element("p", element("b", "Do this: "), wording.sentence(each.advice))
            if each.advice
            else None,
            element(
                "p",
                f"{each.channels:,} channels in " if each.channels else None,
                wording.brief_names(each),
                class_="pr-note",
            )
            if each.layers or each.channels
            else None,
            bar(0, each.channels, most, f"{each.channels:,} channels") if each.channels else None,
        )
        for each in document.stayed
    ]
    return join(
        (
            element("p", f"{said}, for these causes.") if said else None,
            element("ul", *items, class_="pr-causes"),
        )
    )


def _sensitivity(document: Document) -> Html | None:
    if not document.sensitivity:
        return None
    metric = next((each.metric for each in document.sensitivity if each.metric), "score")
    # Those that fall furthest are the ones to look at, so they get the colours.
    curves = sorted(document.sensitivity, key=lambda each: _fall(each.points), reverse=True)
    return join(
        (
            element(
                "p",
                f"How the {metric} changes as one layer is pruned alone. Layers at the top of the "
                "legend change it most.",
                class_="pr-explained",
            ),
            lines(
                [Line(each.layer, each.points) for each in curves],
                f"{metric} over the sparsity of each of {len(curves)} layers",
                x_label="sparsity of the layer",
                y_label=metric,
                percent_x=True,
            ),
        )
    )


def _fall(points: tuple[tuple[float, float], ...]) -> float:
    values = [value for _, value in points]
    return max(values) - min(values) if values else 0.0


def _schedule(document: Document) -> Html | None:
    if not document.schedule:
        return None
    steps = document.schedule
    last = steps[-1]
    charts = [
        lines(
            [Line("sparsity", [(each.step, each.sparsity) for each in steps], steps=True)],
            f"sparsity over {len(steps)} moments, up to {wording.fraction(last.sparsity)} at step "
            f"{last.step}",
            x_label="step",
            y_label="sparsity",
            percent_y=True,
        )
    ]
    for name in dict.fromkeys(name for each in steps for name in each.metrics):
        points = [(each.step, each.metrics[name]) for each in steps if name in each.metrics]
        charts.append(
            lines([Line(name, points)], f"{name} over the steps", x_label="step", y_label=name)
        )
    return element("div", *charts, class_="pr-charts")


def _search(document: Document) -> Html | None:
    scored = [(trial.number, trial.score) for trial in document.trials if trial.score is not None]
    if not document.trials:
        return None
    failed = len(document.trials) - len(scored)
    said = f"{len(document.trials)} trials" + (f", of which {failed} failed" if failed else "")
    best = max(scored, key=lambda each: each[1], default=None)
    chart = lines(
        [Line("trials", scored, dots=True)],
        f"the score of each of {len(scored)} trials",
        x_label="trial",
        y_label="score",
    )
    words = (
        said if best is None else f"{said}; the highest score is {best[1]:.4g}, of trial {best[0]}"
    )
    return join((element("p", f"{words}.", class_="pr-explained"), chart))


def _loading(document: Document) -> Html | None:
    loading = document.loading
    if loading is None and not document.files:
        return None
    return join(
        (
            element("pre", element("code", loading.code), tabindex=0) if loading else None,
            element("p", loading.note) if loading and loading.note else None,
            _table(
                ["file", "what it is", "size"],
                [
                    [
                        element("th", each.path, scope="row"),
                        each.what,
                        "–" if each.bytes is None else wording.size(each.bytes),
                    ]
                    for each in document.files
                ],
            )
            if document.files
            else None,
        )
    )


def _all_layers(document: Document) -> Html | None:
    if not document.layers:
        return None
    rows = [
        [
            element("th", each.name or "(the model)", scope="row"),
            each.type,
            _pair(each.inputs),
            _pair(each.outputs),
            _pair(each.parameters),
            _pair(each.flops),
        ]
        for each in document.layers
    ]
    head = ["layer", "type", "in", "out", "parameters", "FLOPs"]
    return _folded(f"All {len(rows)} layers, as numbers", _table(head, rows))


def _pair(change: object) -> str:
    if change is None:
        return "–"
    before, after = change.before, change.after  # type: ignore[attr-defined]
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"


def _made_with(document: Document) -> Html | None:
    parts = []
    if document.recipe:
        parts.append(
            _folded("The recipe", element("pre", element("code", document.recipe), tabindex=0))
        )
    if document.versions:
        rows = [
            [element("th", name, scope="row"), said] for name, said in document.versions.items()
        ]
        parts.append(_folded("Versions", _table(["package", "version"], rows)))
    if document.seconds:
        rows = [
            [element("th", name, scope="row"), wording.milliseconds(seconds)]
            for name, seconds in document.seconds.items()
        ]
        parts.append(_folded("How long each stage took", _table(["stage", "time"], rows)))
    return join(parts) if parts else None


def _footer(document: Document) -> Html:
    version = document.versions.get("prune-report", "")
    return element(
        "footer",
        f"Written by prune-report{f' {version}' if version else ''}. The numbers behind this page "
        "are in report.json.",
    )


SECTIONS: tuple[tuple[str, Callable[[Document], Html | None]], ...] = (
    ("Quality", _quality),
    ("What stayed", _stayed),
    ("Architecture", _architecture),
    ("What went as a whole", _whole),
    ("Parameters", _parameters),
    ("FLOPs", _flops),
    ("Sensitivity", _sensitivity),
    ("Schedule", _schedule),
    ("Search", _search),
    ("How to load it", _loading),
    ("Every layer", _all_layers),
    ("Made with", _made_with),
)


# --- pieces -----------------------------------------------------------------------------------


def _name(layer: Layer) -> Html:
    return element(
        "span",
        element("b", _breakable(layer.name or "(the model)")),
        " ",
        element("i", layer.type),
        class_="pr-name",
    )


def _breakable(name: str) -> Html:
    """Let a long dotted name break after its dots."""
    return join(name.split("."), between=".<wbr>")


def _key(class_: str, text: str) -> Html:
    return element("span", element("span", class_=f"pr-key {class_}"), text, class_="pr-keyed")


def _few(rows: list[Html], what: str) -> list[Html]:
    """The first rows, and the others folded away."""
    shown = [element("div", *rows[:SHOWN], class_="pr-rows")]
    if others := rows[SHOWN:]:
        shown.append(
            _folded(f"{len(others)} more {what}", element("div", *others, class_="pr-rows"))
        )
    return shown


def _folded(summary: str, body: object) -> Html:
    return element("details", element("summary", summary), body)


def _table(head: list[str], rows: list[list[object]]) -> Html:
    body = [element("tr", *(c if _is_head(c) else element("td", c) for c in row)) for row in rows]
    table = element(
        "table",
        element("thead", element("tr", *(element("th", each, scope="col") for each in head))),
        element("tbody", *body),
    )
    # A wide table scrolls by itself, and not the page with it.
    return element("div", table, class_="pr-scroll", tabindex=0, role="region", aria_label=head[0])


def _is_head(cell: object) -> bool:
    return isinstance(cell, Html) and cell.startswith("<th")

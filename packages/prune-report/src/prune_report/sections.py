"""The sections of a page: each draws its part of a document, or nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable

from prune_report import wording
from prune_report.charts import Line, bar, channels, lines
from prune_report.document import STAGES, Change, Document, Layer, Quality
from prune_report.html import Html, element, join
from prune_report.pieces import few, folded, key, layer_name, table

__all__ = ["SECTIONS", "architecture", "stayed", "whole"]


def _quality(document: Document) -> Html | None:
    if not document.quality:
        return None
    stages = [
        stage
        for stage in STAGES
        if any(getattr(each, stage) is not None for each in document.quality)
    ]
    return table(
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


def architecture(document: Document) -> Html | None:
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
                key("pr-kept", "kept"),
                key("pr-gone", "removed"),
                " Layers wider than the widest pruned one are drawn too narrow." if cut else None,
                class_="pr-explained",
            ),
            *few(rows, "layers"),
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
        layer_name(layer),
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


def _bars(document: Document, what: str, of: Callable[[Layer], Change | None]) -> Html | None:
    """A bar for each layer, leaving out those too small to be seen."""
    changes = [(each, change) for each in document.layers if (change := of(each)) is not None]
    total = sum(change.before for _, change in changes)
    seen = [(each, change) for each, change in changes if change.before > 0.002 * total]
    if not total or not seen:
        return None
    most = max(change.before for _, change in seen)
    rows = [
        element(
            "div",
            layer_name(layer),
            element("span", _from_to(change.before, change.after), class_="pr-numbers"),
            bar(
                change.before,
                change.after,
                most,
                f"{layer.name}: {wording.amount(change.before)} {what} before, "
                f"{wording.amount(change.after)} after",
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
                key("pr-kept", "after"),
                key("pr-gone", "removed"),
                f" {others} layers with less than 0.2 % of the {what} are not drawn."
                if others
                else None,
                class_="pr-explained",
            ),
            *few(rows, "layers"),
        )
    )


def _from_to(before: float, after: float) -> str:
    if before == after:
        return wording.amount(before)
    return f"{wording.amount(before)} → {wording.amount(after)}"


def whole(document: Document) -> Html | None:
    """Blocks and experts that went."""
    parts = []
    if document.blocks:
        parts.append(
            table(
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
        parts += few(rows, "mixtures")
    return join(parts) if parts else None


def stayed(document: Document) -> Html | None:
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
    low = document.optimize_mode == "minimize"
    best = (min if low else max)(scored, key=lambda each: each[1], default=None)
    chart = lines(
        [Line("trials", scored, dots=True)],
        f"the score of each of {len(scored)} trials",
        x_label="trial",
        y_label="score",
    )
    if best is not None:
        said += f"; the best score, the {'lowest' if low else 'highest'}, is {best[1]:.4g}"
        said += f", of trial {best[0]}"
    return join((element("p", f"{said}.", class_="pr-explained"), chart))


def _loading(document: Document) -> Html | None:
    loading = document.loading
    if loading is None and not document.files:
        return None
    return join(
        (
            element("pre", element("code", loading.code), tabindex=0) if loading else None,
            element("p", loading.note) if loading and loading.note else None,
            table(
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
    return folded(f"All {len(rows)} layers, as numbers", table(head, rows))


def _pair(change: Change | None) -> str:
    if change is None:
        return "–"
    before, after = change.before, change.after
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"


def _made_with(document: Document) -> Html | None:
    parts = []
    if document.recipe:
        parts.append(
            folded("The recipe", element("pre", element("code", document.recipe), tabindex=0))
        )
    if document.versions:
        rows = [
            [element("th", name, scope="row"), said] for name, said in document.versions.items()
        ]
        parts.append(folded("Versions", table(["package", "version"], rows)))
    if document.seconds:
        rows = [
            [element("th", name, scope="row"), wording.milliseconds(seconds)]
            for name, seconds in document.seconds.items()
        ]
        parts.append(folded("How long each stage took", table(["stage", "time"], rows)))
    return join(parts) if parts else None


SECTIONS: tuple[tuple[str, Callable[[Document], Html | None]], ...] = (
    ("Quality", _quality),
    ("What stayed", stayed),
    ("Architecture", architecture),
    ("What went as a whole", whole),
    ("Parameters", _parameters),
    ("FLOPs", _flops),
    ("Sensitivity", _sensitivity),
    ("Schedule", _schedule),
    ("Search", _search),
    ("How to load it", _loading),
    ("Every layer", _all_layers),
    ("Made with", _made_with),
)

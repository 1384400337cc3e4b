"""Make a `Document` of what the engines and the user's program know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prune_core.errors import did_you_mean, shown
from prune_report.document import (
    STAGES,
    Curve,
    Document,
    File,
    Loading,
    Quality,
    ReportError,
    Step,
    Trial,
)
from prune_report.sources import part_of
from prune_report.versions import versions_in_use

__all__ = ["from_shrink", "of_search"]


Metrics = Mapping[str, Mapping[str, Any]] | Iterable[Quality]


def from_shrink(
    report: Any,
    *further: Any,
    title: str = "",
    algorithm: str = "",
    quality: Metrics = (),
    schedule: Iterable[Step | Mapping[str, Any]] = (),
    trials: Any = (),
    optimize_mode: str | None = None,
    curves: Iterable[Mapping[str, Any]] = (),
    metric: str = "",
    saved: str = "",
    files: Iterable[File] = (),
    notes: Sequence[str] = (),
    recipe: str = "",
    created: str | None = None,
    versions: Mapping[str, str] | None = None,
) -> Document:
    """Make a document of the reports of one or more steps that made one model smaller.

    Args:
        report: What `shrink`, `prune_tf.shrink`, `remove_blocks` or `remove_experts` returned.
        *further: The reports of later steps on the same model, in their order. What the document
            says of "before" is from the first step, and of "after" from the last.
        title: What stands at the top; by default the class of the model.
        algorithm: What decided, such as `"l1"`.
        quality: `{metric: {"dense": …, "pruned": …, "small": …, "recovered": …}}`, each of which
            may be missing; `"higher_is_better"` may stand beside them.
        schedule: `{"step": …, "sparsity": …}` for each moment, with metrics beside them.
        trials: A search, or its trials: `pruner` or `pruner.trials`.
        optimize_mode: Whether the best score is the highest, `"maximize"`, or the lowest,
            `"minimize"`; by default what the search says, or `"maximize"`.
        curves: Those of a `SensitivityPruner`: `pruner.curves`.
        metric: What the scores of trials and curves are.
        saved: The file of the small model, beside the report; the document then says how to
            load it.
        files: What else is there.
        notes: Sentences that the reader must not miss.
        recipe: The recipe, as it was written.
        created: When, as ISO 8601; by default now.
        versions: `{name: version}`; by default of what is in use.

    Returns:
        A document, for `write`, or to be completed with `dataclasses.replace`.

    Raises:
        ReportError: Something is not what it has to be.

    Example:
        ```python
        report = prune_core.shrink(model, example_inputs, masks)
        document = prune_report.from_shrink(report, quality={"accuracy": {"dense": 0.94}})
        prune_report.write(document, "report")
        ```
    """
    parts = [part_of(each) for each in (report, *further)]
    document = parts[0]
    for later in parts[1:]:
        document = _then(document, later)
    name = document.model or "model"
    return replace(
        document,
        title=title or name,
        algorithm=algorithm,
        quality=tuple(_qualities(quality)),
        schedule=tuple(_step(each) for each in schedule),
        trials=tuple(_trial(number, each) for number, each in enumerate(_of_search(trials))),
        optimize_mode=_mode(trials, optimize_mode),
        sensitivity=tuple(_curves(curves, metric)),
        loading=_loading(document, saved),
        files=tuple(files),
        notes=(*document.notes, *notes),
        recipe=recipe,
        created=datetime.now(UTC).isoformat(timespec="seconds") if created is None else created,
        versions=versions_in_use() if versions is None else dict(versions),
    )


def of_search(pruner: Any, *, metric: str = "") -> Document:
    """Make a document that says of a search what it has tried, and nothing else.

    Args:
        pruner: The search, after `compress()`; its `curves` are kept as well, if it has some.
        metric: What its scores are.
    """
    return Document(
        title=type(pruner).__name__,
        trials=tuple(_trial(number, each) for number, each in enumerate(pruner.trials)),
        optimize_mode=_mode(pruner, None),
        sensitivity=tuple(_curves(getattr(pruner, "curves", ()), metric)),
    )


def _then(first: Document, then: Document) -> Document:
    """Two steps as one."""
    layers = {layer.name: layer for layer in first.layers}
    joined = []
    for layer in then.layers:
        before = layers.get(layer.name)
        if before is not None:
            changed = {
                name: replace(old, after=new.after)
                for name in ("parameters", "flops", "inputs", "outputs")
                if (old := getattr(before, name)) and (new := getattr(layer, name))
            }
            # Numbers of the second step count what the first one left.
            gone = () if before.removed and layer.removed else (*before.removed, *layer.removed)
            layer = replace(layer, **changed, removed=type(layer.removed)(gone))
        joined.append(layer)
    changes = {
        name: replace(old, after=new.after) if old and new else old or new
        for name in ("parameters", "flops", "bytes", "activations", "zeros")
        for old, new in [(getattr(first, name), getattr(then, name))]
    }
    worse = [proof for proof in (first.proof, then.proof) if proof is not None]
    proof = max(worse, key=lambda each: each.difference / (each.tolerance or 1), default=None)
    if proof is not None:
        proof = replace(
            proof,
            cases=tuple(dict.fromkeys(case for each in worse for case in each.cases)),
            moved=max(each.moved for each in worse),
            inside=sum(each.inside for each in worse),
        )
    # What an earlier step says of the model is no longer so.
    notes = then.notes
    if (first.proof is None) != (then.proof is None):
        notes += ("One of the steps was not compared with the model before it.",)
    return replace(
        then,
        **changes,
        layers=tuple(joined) or first.layers,
        blocks=first.blocks + then.blocks,
        experts=first.experts + then.experts,
        stayed=first.stayed + then.stayed,
        asked=first.asked + then.asked,
        proof=proof,
        notes=notes,
        form="graph" if "graph" in (first.form, then.form) else then.form,
        seconds={
            name: first.seconds.get(name, 0.0) + then.seconds.get(name, 0.0)
            for name in (*first.seconds, *then.seconds)
        },
    )


def _qualities(quality: Metrics) -> Iterable[Quality]:
    if not isinstance(quality, Mapping):
        yield from quality
        return
    known = (*STAGES, "higher_is_better")
    for metric, values in quality.items():
        if not isinstance(values, Mapping):
            raise ReportError(
                f"quality[{metric!r}] is {shown(values)}; it must say at which stage, such as "
                f'{{"dense": 0.94, "small": 0.93}}.'
            )
        for stage, value in values.items():
            if stage not in known:
                raise ReportError(
                    f"quality[{metric!r}] has the stage {stage!r}; the stages are "
                    f"{', '.join(STAGES)}.{did_you_mean(stage, known)}"
                )
            if stage != "higher_is_better" and value is not None:
                _number(value, f"quality[{metric!r}][{stage!r}]")
        yield Quality(
            str(metric),
            **{stage: None if v is None else float(v) for stage, v in values.items()
               if stage in STAGES},
            higher_is_better=values.get("higher_is_better"),
        )  # fmt: skip


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ReportError(f"{where} is {shown(value)}; it must be a number.") from None


def _step(given: Step | Mapping[str, Any]) -> Step:
    if isinstance(given, Step):
        return given
    others = {k: v for k, v in given.items() if k not in ("step", "sparsity", "metrics")}
    try:
        return Step(
            int(given["step"]),
            _number(given["sparsity"], "schedule: 'sparsity'"),
            {str(k): _number(v, f"schedule: {k!r}")
             for k, v in (given.get("metrics") or others).items()},
        )  # fmt: skip
    except (KeyError, TypeError):
        raise ReportError(
            f"schedule has the entry {shown(given)}; each must be "
            '{"step": 100, "sparsity": 0.5}, with metrics beside them.'
        ) from None


def _of_search(trials: Any) -> Iterable[Mapping[str, Any]]:
    found: Iterable[Mapping[str, Any]] = getattr(trials, "trials", trials)
    return found


def _mode(trials: Any, said: str | None) -> str:
    mode = getattr(trials, "optimize_mode", "maximize") if said is None else said
    if mode not in ("maximize", "minimize"):
        raise ReportError(
            f"optimize_mode is {shown(mode)}; it must be 'maximize' or 'minimize', as for the "
            "search."
        )
    return str(mode)


def _trial(number: int, given: Mapping[str, Any]) -> Trial:
    score = given.get("score")
    plan = given.get("sparsities") or {}
    return Trial(
        int(given.get("trial", number)),
        None if score is None else _number(score, "trials: 'score'"),
        None if given.get("sparsity") is None else float(given["sparsity"]),
        "failed" if score is None else "complete",
        {str(name): float(value) for name, value in plan.items()},
    )


def _curves(curves: Iterable[Mapping[str, Any]], metric: str) -> Iterable[Curve]:
    lines: dict[str, list[tuple[float, float]]] = {}
    points = list(curves)
    last = max((point.get("round", 1) for point in points), default=1)
    for point in points:
        if point.get("round", 1) == last and point.get("score") is not None:
            line = lines.setdefault(str(point["layer"]), [])
            line.append((float(point["sparsity"]), float(point["score"])))
    for layer, line in lines.items():
        yield Curve(layer, tuple(sorted(line)), metric)


def _loading(document: Document, saved: str) -> Loading | None:
    if not saved:
        return None
    if document.framework == "keras":
        return Loading(f"import keras\n\nmodel = keras.models.load_model({saved!r})")
    made = document.model or "YourModel"
    return Loading(
        "import prune_core\n\n"
        f"model = {made}(...)  # the dense model, built as before pruning\n"
        f"prune_core.load_pruned(model, {saved!r})\n"
        "model.eval()",
        "The file holds the tensors and their new sizes; the class of the model is needed.",
    )

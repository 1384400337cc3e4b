"""The page of the docs, made from results: no number on it is typed by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

from .bench import SCALES, rows_of
from .stages import STAGES

__all__ = ["page"]

Row = dict[str, Any]

INTRODUCTION = """\
# Headline results

Published pruning experiments, run again on CIFAR-10: what each method leaves of a network at once,
and after the same training for all. Every number here comes from a file of results; nothing is
typed by hand.

```sh
python -m benchmarks.headline list
python -m benchmarks.headline run criteria --data CIFAR10 --out results --scale small
python -m benchmarks.headline page results/results.jsonl > docs/headline.md
```

Run them from the root of the repository. `CIFAR10` is a folder with the dataset in its binary form,
in its Python form, or with an image in each file. A stage prints how long it will take before it
begins, and a stage that was stopped goes on where it was. `--scale small` is for a processor,
`--scale full` for a GPU: there the networks have their published width, and all images are used.

"Small equals masked" is the largest difference between the outputs of the small network and of the
masked one, which `shrink` compares. Accuracy is that of the last epoch, on test images that nothing
else sees. The results are kept in `benchmarks/headline/results/`; with `--results` and one of those
files, a stage adds what is missing there.
"""

MISSING = """\
## Not measured yet

These stages are ready and have no results at full scale yet:

{names}

They want a GPU: `scripts/on_device.sh` runs the tests and the benchmarks for GPUs, and then as many
stages as fit into the time that it is given.
"""


def page(files: Iterable[Path]) -> str:
    """Return the page, in Markdown."""
    found = [row for file in files for row in rows_of(file)]
    good = {row["key"]: row for row in found if "error" not in row}
    failed = {row["key"]: row for row in found if "error" in row and row["key"] not in good}
    tables: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in (*good.values(), *failed.values()):
        if row["stage"] != "dense":
            tables[row["stage"], row["scale"], row["hardware"], str(_terms(row))].append(row)
    order = list(STAGES)
    parts = [INTRODUCTION]
    # The full scale first: it is what the papers did.
    keys = sorted(tables, key=lambda key: (key[1] != "full", order.index(key[0])))
    parts += [_section(key[0], tables[key]) for key in keys]
    reached = {row["stage"] for row in good.values() if row["scale"] == "full"}
    names = [f"`{name}`" for name in STAGES if name not in reached]
    if names:
        parts.append(MISSING.format(names=", ".join(names)))
    return "\n".join(parts).rstrip()


def _terms(row: Row) -> list[Any]:
    """Return what rows of one table have in common."""
    return [row[name] for name in ("effort", "precision", "data", "trained_with")]


def _section(stage: str, rows: list[Row]) -> str:
    first, scale = rows[0], SCALES[rows[0]["scale"]]
    good = [row for row in rows if "error" not in row]
    about = STAGES[stage].about
    narrow = "" if scale.narrower == 1 else f", {scale.narrower} times narrower than published"
    seeds = len({row["seed"] for row in rows})
    epochs = scale.dense.epochs * first["effort"], scale.again.epochs * first["effort"]
    lines = [f"## {about[0].upper()}{about[1:]}\n"]
    lines.append(
        f"*{STAGES[stage].network}{narrow}; {first['trained_with']:,} training images, "
        f"{epochs[0]:g} epochs for the dense network and {epochs[1]:g} after pruning; "
        f"{first['tested']:,} test images; {seeds} seed{'s' if seeds > 1 else ''}.*"
    )
    spent = sum(row["cpu_seconds"] for row in rows) / 60
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    lines.append(
        f"*{first['hardware']}, {first['precision']}, {spent:.0f} minutes of processor time; "
        f"{versions}; {max(row['date'] for row in rows)}.*\n"
    )
    dense = mean({row["seed"]: row["dense"] for row in good}.values()) if good else None
    if dense is not None:
        lines.append(f"**The dense network has {dense:.2%}.**\n")
    items: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        items[row["item"]].append(row)
    columns = [c for c in COLUMNS if any(c in row for row in good)]
    lines.append(f"| method | {' | '.join(COLUMNS[c][0] for c in columns)} |")
    lines.append(f"| --- |{' --: |' * len(columns)}")
    ordered = sorted(items, key=lambda name: -_mean(items[name], "recovered"))
    for name in ordered:
        some = [row for row in items[name] if "error" not in row]
        cells = [COLUMNS[c][1]([r[c] for r in some if r.get(c) is not None]) for c in columns]
        if not some:
            cells = [items[name][0]["error"].replace("|", "\\|"), *[""] * (len(columns) - 1)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    expected = [item.name for item in STAGES[stage].items(SimpleNamespace(scale=scale))]
    missing = [f"`{name}`" for name in expected if name not in items]
    if missing:
        lines.append(f"\nNot run yet: {', '.join(missing)}.")
    return "\n".join([*lines, *_verdict(items), ""])


def _verdict(items: dict[str, list[Row]]) -> list[str]:
    """Say who is ahead, from the numbers."""
    said = []
    for key, when in (("pruned", "At once"), ("recovered", "Trained again")):
        means = {name: _mean(rows, key) for name, rows in items.items()}
        means = {name: value for name, value in means.items() if value >= 0}
        theirs = {name for name in means if name.startswith("Torch-Pruning")}
        if not theirs or theirs == set(means):
            continue
        ours = max(means.keys() - theirs, key=lambda name: means[name])
        rival = max(theirs, key=lambda name: means[name])
        ahead = means[ours] - means[rival]
        verb = "is ahead of" if ahead > 0 else "is **behind**" if ahead < 0 else "is level with"
        said.append(
            f"* {when}, the best of ours, `{ours}` with {means[ours]:.2%}, {verb} the best of "
            f"Torch-Pruning, {rival.removeprefix('Torch-Pruning, ')} with {means[rival]:.2%}."
        )
    compared = [row for rows in items.values() for row in rows if "recovered" in row]
    if said and compared:
        # A standard deviation of the share of n images whose class is found.
        share, n = mean(row["recovered"] for row in compared), compared[0]["tested"]
        chance = (share * (1 - share) / n) ** 0.5
        seeds = len({row["seed"] for row in compared})
        said.append(
            f"* With {n:,} test images an accuracy is known to about ±{2 * chance:.1%} (two "
            f"standard deviations), and how a training turns out varies besides: there "
            f"{'is one seed' if seeds == 1 else f'are {seeds} seeds'}."
        )
    return ["", *said] if said else []


def _mean(rows: list[Row], key: str) -> float:
    values = [row[key] for row in rows if key in row]
    return mean(values) if values else -1.0


def _percent(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ({max(values) - min(values):.2%})" if values[1:] else ""
    return f"{mean(values):.2%}{spread}"


def _share(values: list[float]) -> str:
    return f"{mean(values):.1%}" if values else ""


def _worst(values: list[float]) -> str:
    return f"{max(values):.0e}" if values else ""


def _rounds(values: list[list[tuple[float, float]]]) -> str:
    return "; ".join(f"{sparsity:.0%}: {score:.2%}" for sparsity, score in values[0])


COLUMNS = {
    "published": ("published", lambda values: values[0] if values else ""),
    "trials": ("evaluations", lambda values: f"{mean(values):.0f}" if values else ""),
    "speedup": ("fewer FLOPs", lambda values: f"{mean(values):.2f}×" if values else ""),
    "parameters": ("parameters left", _share),
    "sparsity": ("weights pruned", _share),
    "rounds": ("sparsity: accuracy", _rounds),
    "trained_sparsely": ("trained sparsely", _percent),
    "pruned": ("pruned", _percent),
    "recovered": ("trained again", _percent),
    "difference": ("small equals masked", _worst),
}

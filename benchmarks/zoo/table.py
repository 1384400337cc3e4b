"""The page of the docs, made of the rows of a run."""

from collections import Counter

_HEAD = """\
# The zoo

This page shows how far the speedup engine goes by itself. Half of the units of every model were
chosen blindly and removed, without any hints. Then an oracle judged what was left. The oracle
shares no code with the engine. It takes the original in double precision, sets the same slices to
zero, takes norms over the channels that are left, and compares every output. *Difference* is the
largest difference, relative to the largest number of the output. A model counts as exact if it is
below {exact:.0e}. If the removed units move no output by more than {visible:.0e}, the test shows
nothing and counts as failed.

* **ok**: exact, and more than 30 % of the parameters are gone.
* **kept**: exact, but less is gone, because so much of the model has to stay.
* **refused**: there was an error with a reason, and the model is what it was.
* **failed**: the model could not be judged, usually for lack of time.
* **wrong**: the oracle disagrees.

{summary}

First, the statistics and scales of the norms were made random, as training would leave them. Inputs
are smaller than usual if the model allows it. The models of transformers and diffusers are built
from small configurations. If a family has several sizes, the page shows the smallest; `--every`
runs the others too.

Made with {versions}, by

```sh
python benchmarks/pages.py speedup-zoo
```

which needs prune-core and the libraries of the suites. Each model runs in a process of its own,
within 1500 s and a limit on memory. *Seconds* is what `shrink` took, its own comparison included,
on one core of a busy machine. Use it to compare models with each other. A run goes on where it was
stopped. `--again` judges models once more that ended in one of the given states.
"""

_TITLES = {
    "nasty": "What makes pruning difficult",
    "torch": "torch's own sequence layers",
    "torchvision": "torchvision",
    "timm": "timm",
    "transformers": "transformers",
    "ultralytics": "ultralytics",
    "diffusers": "diffusers",
}


def page_of(rows, *, exact, visible):
    """The page that the last row of every model makes."""
    suites, versions = {}, {}
    for row in rows.values():
        suite, _, name = row["model"].partition("/")
        suites.setdefault(suite, []).append({**row, "name": name})
        versions |= row.get("versions", {})
    lines = [
        _HEAD.format(
            exact=exact,
            visible=visible,
            summary="\n".join(_summary(suites)),
            versions=", ".join(
                f"{name} {versions[name].partition('+')[0]}" for name in _TITLES if name in versions
            ),
        )
    ]
    for suite, title in _TITLES.items():
        if suite in suites:
            lines += ["", f"## {title}", "", *_table(suites[suite])]
    return "\n".join(lines) + "\n"


def _summary(suites):
    states = ("ok", "kept", "refused", "failed", "wrong")
    yield "| suite | models | " + " | ".join(states) + " |"
    yield "| --- |" + " --: |" * (len(states) + 1)
    total = Counter()
    for suite, title in _TITLES.items():
        count = Counter(row["status"] for row in suites.get(suite, ()))
        total += count
        numbers = " | ".join(str(count[state]) for state in states)
        yield f"| {title} | {count.total()} | {numbers} |"
    yield f"| **all** | {total.total()} | " + " | ".join(str(total[s]) for s in states) + " |"


def _table(rows):
    yield "| model | state | parameters | of them gone | FLOPs gone | difference | seconds | why |"
    yield "| --- | --- | --: | --: | --: | --: | --: | --- |"
    for row in rows:
        numbers = ["", "", "", ""]
        if "removed" in row:
            numbers = [f"{row['removed']:.0%}", f"{row['flops']:.0%}", f"{row['difference']:.0e}"]
            numbers.append(f"{row['seconds'] + row['verify_seconds']:.1f}")
        why = row["reason"].replace("|", "\\|").replace("\n", " ")[:160]
        cells = [row["name"], row["status"], f"{row.get('parameters', 0):,}", *numbers, why]
        yield "| " + " | ".join(cells) + " |"

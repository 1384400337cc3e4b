"""The page of the docs, made of the rows of a run."""

from collections import Counter

_HEAD = """\
# The zoo

How far the speedup engine goes by itself: half of the units of every model here were chosen
blindly and removed, without a hint by hand, and an oracle judged what was left. The oracle shares
no code with the engine. It takes the original in double precision, with the same slices set to
zero and its norms taken over the channels that are left, and compares every output. *Difference*
is the largest one, relative to the largest number of the output; below {exact:.0e} counts as
exact, and a mask that moves no output by more than {visible:.0e} counts as a failed test.

* **ok**: exact, and more than 30 % of the parameters are gone;
* **kept**: exact, with less gone, because so much of the model has to stay;
* **refused**: an error said why, and the model is what it was;
* **failed**: the model could not be judged, most often for want of time;
* **wrong**: the oracle disagrees.

{summary}

Statistics and scales of the norms were made random first, as training would leave them. The
inputs are smaller than customary where a model allows it, and the transformers models are
built from small configurations. Where a family has several sizes the smallest stands for
it; `--every` runs the others too.

Made with {versions}, by

```sh
python benchmarks/pages.py speedup-zoo
```

which needs the libraries of the suites beside prune-core. Each model runs in a process of
its own, within 1500 s and a limit on memory. *Seconds* is what the speedup took with its own
proof, on one core of a machine that was busy, so it is good for comparing models and no more. A run
goes on where it was stopped; `--again` judges models of the states that it is given once more.
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

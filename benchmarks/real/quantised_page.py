"""Write docs/quantised-models.md from what quantise.py has measured.

    python benchmarks/real/quantised_page.py quantised.jsonl > docs/quantised-models.md

Every number on the page comes from the results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

INTRODUCTION = """\
# Quantised models

What pruning and quantising leave of trained models, each alone and both together. The models are
those of [Trained models](real-models.md). "Pruned" means pruned, made small, and trained again for
25 steps with the whole model as its teacher; then it is quantised, which is the order of
[the guide](guides/quantize.md).

```sh
python benchmarks/real/quantise.py --results quantised.jsonl
python benchmarks/real/quantised_page.py quantised.jsonl > docs/quantised-models.md
```

"torch" is `prune_quant.quantize(model, scheme)`; CREPE is run by `torch.compile` with constant
weights, the ALBERT as it is.
"ONNX Runtime" is `ObserverQuantizer` with weights, inputs and outputs of 8 bits, its `convert()`,
and `prune_core.export`. Ranges come from 8 batches. Bytes are those of the file: a state dict, or
ONNX. Times are CPU time of one thread for one batch; the forms of a model are timed in turns, and
the shortest of 15 counts. The machine was busy, so only large differences mean something.
"""


def main() -> None:
    """Print the page."""
    results = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    print(INTRODUCTION)
    for task in dict.fromkeys(each["task"] for each in results):
        print(table([each for each in results if each["task"] == task]))


def table(results: list[dict[str, Any]]) -> str:
    """Return the table of one model, and what it says."""
    first = results[0]
    rows = [
        f"## {first['task']}\n",
        f"Quality is the {first['metric']}.\n",
        "| model | form | quality | bytes | of the first | milliseconds | of the first |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    rows += [
        f"| {each['model']} | {each['form']} "
        f"| {each['quality']:.3f} | {each['bytes']:,} | {each['bytes'] / first['bytes']:.0%} "
        f"| {each['ms']:.0f} | {each['ms'] / first['ms']:.0%} |"
        for each in results
    ]
    smallest = min(results, key=lambda each: each["bytes"])
    rows.append(
        f"\n* The smallest, {smallest['model']} and {smallest['form']}, has "
        f"{smallest['bytes'] / first['bytes']:.0%} of the bytes; its quality is "
        f"{smallest['quality']:.3f}, and that of the whole model {first['quality']:.3f}."
    )
    fastest = min(results, key=lambda each: each["ms"])
    rows.append(
        f"* The fastest, {fastest['model']} and {fastest['form']}, takes "
        f"{fastest['ms'] / first['ms']:.0%} of the time."
    )
    proved = [each["apart"] for each in results if "apart" in each]
    if proved:
        rows.append(
            f"* What ONNX Runtime computes with integers is at most {max(proved):.2%} away from "
            "the same model in torch, on real inputs. A sum in another order rounds a value to the "
            "next integer now and then, and what is behind it follows; most outputs are equal."
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()

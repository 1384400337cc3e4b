"""The README's table beside the peers, from the results of benchmarks: nothing is typed by hand.

python benchmarks/peers.py            # print the table
python benchmarks/peers.py --write    # put it into README.md
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/real/results.jsonl"
README = ROOT / "README.md"
BEGIN, END = "<!-- made by benchmarks/peers.py -->", "<!-- end -->"
PEER = "Torch-Pruning"
UNTOUCHED = 0.99
"""With so much of its FLOPs left, nothing was done to a model."""


def table() -> str:
    """Return the table: for each model that both have pruned, the best of each."""
    lines = [
        f"| model, size, measured | | whole model | best of prune | best of {PEER} |",
        "| --- | --- | --: | --- | --- |",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for line in RESULTS.read_text("utf-8").splitlines():
        each = json.loads(line)
        groups[each["task"], each["size"]].append(each)
    for (task, size), results in groups.items():
        theirs = [each for each in results if each["method"].startswith(PEER)]
        if not theirs:
            continue
        ours = [each for each in results if each not in theirs]
        first = results[0]
        for key, when in (("pruned", "at once"), ("recovered", "trained again")):
            lines.append(
                f"| {task}, {size}, {first['metric']} | {when} | {first['dense']:.3f} "
                f"| {best(ours, key)} | {best(theirs, key)} |"
            )
    return "\n".join(lines)


def best(results: list[dict[str, Any]], key: str) -> str:
    """Return the mean and the spread of the method that is best, and its name.

    Args:
        results: Of several methods.
        key: What is compared.
    """
    if all((each.get("flops") or 0) > UNTOUCHED for each in results):
        return "removes nothing of it"
    values: dict[str, list[float]] = defaultdict(list)
    for each in results:
        if each.get(key) is not None:
            values[each["method"].removeprefix(f"{PEER}, ")].append(each[key])
    if not values:
        return "not measured"
    sign = 1 if results[0]["higher_is_better"] else -1
    name = max(values, key=lambda method: sign * mean(values[method]))
    found = values[name]
    spread = f" ± {(max(found) - min(found)) / 2:.3f}" if found[1:] else ""
    return f"{mean(found):.3f}{spread}, {name}"


def readme() -> str:
    """Return the README with the table of today."""
    before, rest = README.read_text("utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    if parser.parse_args().write:
        README.write_text(readme(), encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()

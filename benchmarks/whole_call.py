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
process of its own with one thread and a fresh model, and the three ways take turns. The median
counts. CPU seconds are those of the process; a forward is the example's, without gradients. The
least that a proof can take are the plain forwards of both models on all that they are compared on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import process_time
from typing import Any

import torch
from torch import nn

NAMES = (
    *("resnet18", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny"),
    *("vit_b_16", "bert", "llama12"),
)
WAYS = ("proved", "unproved", "theirs")
LIMIT = 300


def build(name: str) -> tuple[nn.Module, Any]:
    """Return a network with random weights, and an input."""
    torch.manual_seed(0)
    # torchvision asks for two operators that only its own build for accelerators brings; so does
    # transformers, where it finds torchvision.
    for operator in ("nms", "qnms"):
        with suppress(RuntimeError):  # somebody has imported torchvision already
            torch.library.define(
                f"torchvision::{operator}",
                "(Tensor dets, Tensor scores, float threshold) -> Tensor",
            )
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
    import torchvision

    return torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)


def ours(model: nn.Module, inputs: Any, *, verify: bool) -> None:
    """What a user writes."""
    from prune_core import prune, shrink, unwrap

    wrapped, masks = prune(model, "l1", sparsity=0.5, example_inputs=inputs)
    shrink(unwrap(wrapped), inputs, masks, verify=verify)


def theirs(model: nn.Module, inputs: Any) -> None:
    """Prune with the peer, told nothing but which layer is the classifier."""
    import torch_pruning

    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1)
    pruner = torch_pruning.pruner.MagnitudePruner(
        model, inputs, importance=importance, pruning_ratio=0.5, ignored_layers=linear[-1:]
    )
    pruner.step()


CALLS: dict[str, Callable[[nn.Module, Any], None]] = {
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


def least(models: Sequence[nn.Module], inputs: Any) -> float:
    """Return the CPU seconds of the forwards without which models cannot be compared as ours are.

    Args:
        models: The model before and after.
        inputs: The example.
    """
    from prune_speedup.torch.proof.cases import cases_of

    seconds = 0.0
    waiting = cases_of(models[0], inputs, (), opened=False, repaired=False)
    while waiting:
        case = waiting.pop()
        try:
            spent = []
            for model in models:
                model.train(case.training)
                spent.append(min(run(model, case.inputs) for _ in range(2)))
            seconds += sum(spent)
        except Exception:
            waiting += [] if case.otherwise is None else [case.otherwise]
    return seconds


def measure(way: str, name: str) -> dict[str, float]:
    """Run one measurement in this process."""
    torch.set_num_threads(1)
    tiny = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    CALLS[way](tiny.eval(), torch.randn(1, 3, 8, 8))
    model, inputs = build(name)
    before = sum(p.numel() for p in model.parameters())
    forward = min(run(model, inputs) for _ in range(3))
    start = process_time()
    CALLS[way](model, inputs)
    spent = process_time() - start
    left = sum(p.numel() for p in model.parameters()) / before
    found = {"forward": forward, "seconds": spent, "left": left}
    return found | ({"least": least([build(name)[0], model], inputs)} if way == "proved" else {})


def in_a_process(way: str, name: str) -> dict[str, float] | str:
    """Return one measurement, or why there is none."""
    command = [sys.executable, __file__, "--one", way, name]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=alone)
    except subprocess.TimeoutExpired:
        return f"no end after {LIMIT} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["killed"])[-1][:60]
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def row(name: str, repeat: int, ways: Sequence[str]) -> str:
    """Return the line of one network."""
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    failed: dict[str, str] = {}
    for _ in range(repeat):
        for way in (way for way in ways if way not in failed):
            found = in_a_process(way, name)
            if isinstance(found, str):
                failed[way] = found
            else:
                rows[way].append(found)
    seconds = {w: statistics.median(r["seconds"] for r in rows[w]) for w in WAYS if rows[w]}
    every = [each["forward"] for found in rows.values() for each in found]
    forward = statistics.median(every) if every else 0.0
    cells = [f"{name:16}", f"{forward:7.3f}"]
    cells += [f"{seconds[way]:8.2f}" if way in seconds else f"{'-':>8}" for way in WAYS]
    peer = seconds.get("theirs")
    cells += [
        f"{seconds[way] / peer:8.2f}" if peer and way in seconds else f"{'-':>8}"
        for way in WAYS[:2]
    ]
    if "proved" in seconds and "unproved" in seconds and forward:
        proof = seconds["proved"] - seconds["unproved"]
        needed = statistics.median(r["least"] for r in rows["proved"])
        cells += [f"{proof / forward:8.1f}", f"{needed / forward:8.1f}", f"{proof / needed:8.2f}"]
    left = [f"{rows[way][0]['left']:.3f}" for way in WAYS[1:] if rows[way]]
    return " ".join([*cells, "  ", ", ".join(left), *(f"{w}: {why}" for w, why in failed.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(arguments.one, arguments.names[0])))
        return
    print(
        f"{'':16} forward   proved unproved   theirs   ratios proved, unproved   "
        "proof in forwards, the least, over that   parameters left: ours, theirs"
    )
    for name in arguments.names:
        print(row(name, arguments.repeat, arguments.ways), flush=True)


if __name__ == "__main__":
    main()

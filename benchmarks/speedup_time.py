"""Seconds to make a network half as wide, beside Torch-Pruning in the same run.

    python -m venv .bench && . .bench/bin/activate
    pip install -c constraints.txt torch ./packages/prune-core
    pip install --no-deps torchvision==0.28.0 pillow torch-pruning==1.6.1
    pip install transformers
    python benchmarks/speedup_time.py

Ours is to record the forward, find the units, plan and cut. What else `shrink` takes is listed
beside it, because the peer has nothing of it: the proof, the search for a config that describes the
small model, and the report, which counts zeros, bytes and FLOPs. Theirs is the making of the
pruner, which builds its graph, and one step. Half of the channels of every layer but the classifier
go, each measurement in a process of its own with a fresh model; the median counts.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import warnings
from time import perf_counter

import torch
from torch import nn

NAMES = ("resnet50", "densenet121", "vit_b_16", "swin_t", "llama12")
LIMIT = 120


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a network with random weights, and an input."""
    torch.manual_seed(0)
    # torchvision asks for two operators that only its own build for accelerators brings.
    for operator in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor"
        )
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
        return LlamaForCausalLM(config).eval(), torch.randint(0, 8000, (1, 64))
    import torchvision

    return torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)


def ours(model: nn.Module, inputs: torch.Tensor) -> dict[str, float]:
    """Shrink with half of each group of units chosen blindly."""
    from prune_core import shrink, units

    found = units(model, inputs)
    pick = random.Random(0)
    labels = [x for group in found.groups for x in pick.sample(group.labels, len(group) // 2)]
    chosen = [found.unit(label) for label in labels]
    start = perf_counter()
    spent = shrink(model, inputs, units=chosen).seconds
    whole = perf_counter() - start
    found = {"proof": spent["verify"], "config": spent["config"]}
    found["seconds"] = sum(spent.values()) - sum(found.values())
    return {**found, "report": whole - sum(found.values())}


def theirs(model: nn.Module, inputs: torch.Tensor) -> dict[str, float]:
    """Prune with the peer, told nothing but which layer is the classifier."""
    import torch_pruning

    classifier = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1)
    start = perf_counter()
    pruner = torch_pruning.pruner.MagnitudePruner(
        model, inputs, importance=importance, pruning_ratio=0.5, ignored_layers=[classifier]
    )
    pruner.step()
    return {"seconds": perf_counter() - start}


def measure(who: str, name: str) -> dict[str, float]:
    """Run one measurement in this process."""
    model, inputs = build(name)
    before = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        model(inputs)
        start = perf_counter()
        model(inputs)
        forward = perf_counter() - start
    found = {"ours": ours, "theirs": theirs}[who](model, inputs)
    left = sum(p.numel() for p in model.parameters()) / before
    return {"forward": forward, "left": left, **found}


def in_a_process(who: str, name: str, repeat: int) -> dict[str, float] | str:
    """Return the medians of several measurements, or why there are none."""
    rows = []
    for _ in range(repeat):
        command = [sys.executable, __file__, "--one", who, name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return f"no end after {LIMIT} s"
        if done.returncode:
            return done.stderr.strip().splitlines()[-1][:60]
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--one", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(arguments.one, arguments.names[0])))
        return
    print(
        f"{'':12} forward    ours   proof  config  report  theirs   ours/theirs   parameters left"
    )
    for name in arguments.names:
        us = in_a_process("ours", name, arguments.repeat)
        them = in_a_process("theirs", name, arguments.repeat)
        if isinstance(us, str):
            print(f"{name:12} ours: {us}")
            continue
        line = f"{name:12} {us['forward']:7.3f} {us['seconds']:7.2f} {us['proof']:7.2f} "
        line += f"{us['config']:7.2f} {us['report']:7.2f} "
        if isinstance(them, str):
            print(f"{line}       -             -   {us['left']:.3f}   theirs: {them}", flush=True)
            continue
        ratio = us["seconds"] / them["seconds"]
        left = f"{us['left']:.3f}, theirs {them['left']:.3f}"
        print(f"{line}{them['seconds']:7.2f} {ratio:13.2f}   {left}", flush=True)


if __name__ == "__main__":
    main()

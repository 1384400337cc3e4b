"""Global magnitude pruning: time and memory beside torch.nn.utils.prune, in one run.

Each measurement has a fresh process of its own, which builds the model, prunes it once and reports
the time and by how much its peak memory grew, as a multiple of the weights' size.

    python benchmarks/global_unstructured.py --parameters 350e6 --amount 0.5
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import time

import torch
from torch import nn

OURS = "prune_core.functional"
THEIRS = "torch.nn.utils.prune"
SELECTION = "prune_toolkit.allocate.selection"


def transformer(parameters: float) -> nn.ModuleList:
    """Return the linear layers of a transformer of 12 blocks and about so many parameters."""
    width = max(64, round((parameters / (12 * 12)) ** 0.5 / 64) * 64)
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    return nn.ModuleList(nn.Linear(*shape, bias=False) for _ in range(12) for shape in shapes)


def measure(tool: str, parameters: float, amount: float) -> dict[str, float]:
    torch.manual_seed(0)
    layers = transformer(parameters)
    count = sum(p.numel() for p in layers.parameters())
    module = importlib.import_module(tool)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if tool == SELECTION:
        weights = [layer.weight for layer in layers]
        marks = module.smallest(weights, round(amount * count), transform=torch.abs)
    else:
        pairs = [(layer, "weight") for layer in layers]
        module.global_unstructured(pairs, module.L1Unstructured, amount=amount)
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if tool != SELECTION:
        marks = [layer.weight_mask == 0 for layer in layers]
    return {
        "parameters": count,
        "seconds": seconds,
        "memory": grown * 1024 / (4 * count),
        "pruned": sum(int(mark.count_nonzero()) for mark in marks),
    }


def in_a_process_of_its_own(tool: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--tool", tool]
    for name in ("parameters", "amount", "threads"):
        command += [f"--{name}", str(getattr(arguments, name))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=float, default=50e6)
    parser.add_argument("--amount", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tool", choices=[OURS, THEIRS, SELECTION], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.tool:
        print(json.dumps(measure(arguments.tool, arguments.parameters, arguments.amount)))
        return
    results = {tool: in_a_process_of_its_own(tool, arguments) for tool in (SELECTION, OURS, THEIRS)}
    print(f"{results[OURS]['parameters'] / 1e6:.0f}M parameters, amount {arguments.amount}")
    for tool, result in results.items():
        print(
            f"{tool:24} {result['seconds']:7.2f} s   peak +{result['memory']:.2f}x the weights   "
            f"{result['pruned']} pruned"
        )
    ours, theirs = results[OURS], results[THEIRS]
    print(
        f"ours / theirs: time {ours['seconds'] / theirs['seconds']:.3f}, "
        f"peak extra memory {ours['memory'] / theirs['memory']:.3f}"
    )


if __name__ == "__main__":
    main()

"""L1 masks for the convolutions of ResNet-50: time over one pass of `w.abs().sum()`.

    python benchmarks/l1_masks.py

The pass over the weights is the least that any implementation has to do. Goal: at most 1.5. Both
are measured in turns, and the smallest time of each counts.
"""

import argparse
import time
from collections.abc import Callable

import torch
from models import resnet50_convolutions

from prune_core import unwrap
from prune_filter import L1NormPruner

GOAL = 1.5


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    layers = resnet50_convolutions()
    weights = [layer.weight for layer in layers]

    @torch.no_grad()
    def one_pass() -> None:
        for weight in weights:
            weight.abs().sum()

    ours, theirs = [], []
    for _ in range(arguments.repeat):
        theirs.append(seconds(one_pass))
        pruner = L1NormPruner(layers, [{"sparsity": 0.5, "op_types": ["Conv2d"]}])
        ours.append(seconds(pruner.compress))
        unwrap(layers)
    count = sum(weight.numel() for weight in weights)
    print(f"{len(weights)} convolutions, {count / 1e6:.1f}M weights, {arguments.threads} thread(s)")
    print(f"one pass of w.abs().sum()  {min(theirs) * 1e3:7.1f} ms")
    print(f"L1NormPruner.compress()    {min(ours) * 1e3:7.1f} ms")
    print(f"ours / one pass: {min(ours) / min(theirs):.2f} (goal: at most {GOAL})")


if __name__ == "__main__":
    main()

"""One training step of a masked ResNet-18 over one of the dense model, torch's pruning beside it.

    python benchmarks/masked_step.py

A step is forward, backward and SGD on 32 images of 224 × 224 pixels; all convolutions and the
linear layer are masked to half. The three are measured in turns, and the median of the ratios of
neighbouring measurements counts. Goal: at most 1.03. Masking costs the same whatever the images,
so that with `--pixels 64`, where a step does a twelfth of the work, it shows more.
"""

import argparse
import time
from statistics import median

import torch
from models import ResNet18
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

from prune_filter import L1NormPruner

GOAL = 1.03
RULES = [{"sparsity": 0.5, "op_types": ["Conv2d", "Linear"]}]


def dense() -> nn.Module:
    torch.manual_seed(0)
    return ResNet18()


def ours() -> nn.Module:
    model, _ = L1NormPruner(dense(), RULES).compress()
    return model


def theirs() -> nn.Module:
    model = dense()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            torch_prune.ln_structured(module, "weight", amount=0.5, n=1, dim=0)
    return model


class Step:
    def __init__(self, model: nn.Module, batch: int, pixels: int) -> None:
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        self.inputs = torch.randn(batch, 3, pixels, pixels)
        self.labels = torch.randint(1000, (batch,))

    def seconds(self) -> float:
        start = time.process_time()
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.inputs), self.labels).backward()
        self.optimizer.step()
        return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps = {
        name: Step(build(), arguments.batch, arguments.pixels)
        for name, build in (("dense", dense), ("ours", ours), ("torch", theirs))
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.repeat + 2):
        for name, step in steps.items():
            taken = step.seconds()
            if turn >= 2:  # the first are slower: memory is allocated, kernels are chosen
                times[name].append(taken)
    print(
        f"batch {arguments.batch}, {arguments.pixels}x{arguments.pixels} pixels, "
        f"{arguments.threads} thread(s)"
    )
    for name, label in (
        ("dense", "dense"),
        ("ours", "masked by prune_filter"),
        ("torch", "masked by torch.nn.utils.prune"),
    ):
        ratio = median(a / b for a, b in zip(times[name], times["dense"], strict=True))
        goal = f" (goal: at most {GOAL})" if name == "ours" else ""
        print(f"{label:32} {median(times[name]) * 1e3:8.1f} ms   {ratio:.3f}x{goal}")


if __name__ == "__main__":
    main()

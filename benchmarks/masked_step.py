"""One training step of a masked network over one of the dense one, torch's pruning beside it.

    python benchmarks/masked_step.py
    python benchmarks/masked_step.py "ResNet-18, 32 images of 64 pixels" --threads 1

A step is forward, backward and SGD; of all convolutions and linear layers whole channels are
masked, half of them unless `--sparsity` says otherwise. The three are measured in turns, in CPU
seconds, and the median of the ratios of neighbouring measurements counts. Goal: at most 1.03, and
not above torch's.

Multiplying masks into weights costs the same whatever the batch: each weight and each gradient is
read and written once more. For a ResNet-18 that is 188 MB, which is a tenth of a step on small
images. So masked channels are left out where there are enough of them, and otherwise layers with
more weights than results have these masked instead.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from models import Decoder, ResNet18, ViTTiny
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

from prune_filter import L1NormPruner

GOAL = 1.03

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "ResNet-18, 32 images of 224 pixels": (ResNet18, 32, 224),
    "ResNet-18, 32 images of 64 pixels": (ResNet18, 32, 64),
    "ResNet-18, 32 images of 32 pixels": (ResNet18, 32, 32),
    "ViT-tiny, 8 images of 224 pixels": (ViTTiny, 8, 224),
    "a decoder of 6 layers, 1 text of 128 tokens": (lambda: Decoder(6, 256), 1, 0),
}
"""Networks by name, with the size of a batch, and of its images if it has any."""


def dense(model: nn.Module, sparsity: float) -> nn.Module:
    return model


def ours(model: nn.Module, sparsity: float) -> nn.Module:
    rules = [{"sparsity": sparsity, "op_types": ["Conv2d", "Linear"]}]
    model, _ = L1NormPruner(model, rules).compress()
    return model


def theirs(model: nn.Module, sparsity: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            torch_prune.ln_structured(module, "weight", amount=sparsity, n=1, dim=0)
    return model


class Step:
    """A network in training."""

    def __init__(self, model: nn.Module, batch: int, pixels: int) -> None:
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        self.inputs = torch.randint(1000, (batch, 128))
        self.labels = self.inputs
        if pixels:
            self.inputs = torch.randn(batch, 3, pixels, pixels)
            self.labels = torch.randint(1000, (batch,))

    def loss(self) -> Tensor:
        found = self.model(self.inputs)
        return F.cross_entropy(found.flatten(0, -2), self.labels.flatten())

    def seconds(self) -> float:
        start = time.process_time()
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()
        return time.process_time() - start


def measure(name: str, repeat: int, sparsity: float = 0.5) -> None:
    """Print what a step of one network takes, in its three forms."""
    build, batch, pixels = NETWORKS[name]
    steps = {}
    for form, made in (("dense", dense), ("ours", ours), ("torch", theirs)):
        torch.manual_seed(0)
        steps[form] = Step(made(build(), sparsity), batch, pixels)
    times: dict[str, list[float]] = {form: [] for form in steps}
    for turn in range(repeat + 2):
        for form, step in steps.items():
            taken = step.seconds()
            if turn >= 2:  # the first are slower: memory is allocated, kernels are chosen
                times[form].append(taken)
    ratio = {
        form: median(a / b for a, b in zip(times[form], times["dense"], strict=True))
        for form in times
    }
    print(
        f"{name}: dense {median(times['dense']) * 1e3:.1f} ms, "
        f"masked by prune_filter {ratio['ours']:.3f}x (goal: at most {GOAL}), "
        f"masked by torch.nn.utils.prune {ratio['torch']:.3f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*NETWORKS], help="; ".join(NETWORKS))
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sparsity", type=float, default=0.5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.names:
        measure(name, arguments.repeat, arguments.sparsity)


if __name__ == "__main__":
    main()

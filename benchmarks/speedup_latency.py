"""The latency of a network made half as wide, over that of one built so: at most 1.05.

    python benchmarks/speedup_latency.py

Speedup leaves the same Python model with smaller tensors, and here and there a corrected number.
What that costs is seen beside a fresh network with the same shapes, and what it gains beside the
dense one. All three run in turns, and the smallest time of each counts.
"""

import argparse
import random
import time
from collections.abc import Callable

import torch
from models import Decoder, ResNet18
from torch import Tensor, nn

import prune_core

GOAL = 1.05


def half_as_wide(model: nn.Module, inputs: Tensor) -> nn.Module:
    """Remove half of each group of units, whichever."""
    found = prune_core.units(model, inputs)
    pick = random.Random(0)
    labels = [x for group in found.groups for x in pick.sample(group.labels, len(group) // 2)]
    prune_core.shrink(model, inputs, units=[found.unit(label) for label in labels])
    return model


def shapes(model: nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in model.parameters()]


def seconds(model: nn.Module, inputs: Tensor) -> float:
    start = time.process_time()
    model(inputs)
    return time.process_time() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=30)
    arguments = parser.parse_args()
    image, text = torch.randn(1, 3, 224, 224), torch.randint(0, 1000, (1, 128))
    networks: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Tensor]] = {
        "ResNet-18": (ResNet18, lambda: ResNet18(width=32), image),
        "decoder, 12 layers": (lambda: Decoder(12), lambda: Decoder(12, 256, heads=4), text),
    }
    print(f"{'':20} dense ms  built small ms  made small ms   made/built   made/dense")
    for name, (dense, built, inputs) in networks.items():
        torch.manual_seed(0)
        models = [dense().eval(), built().eval(), half_as_wide(dense().eval(), inputs)]
        assert shapes(models[1]) == shapes(models[2])
        times = [[seconds(model, inputs) for model in models] for _ in range(arguments.repeat)]
        big, fresh, small = (min(each) * 1e3 for each in zip(*times, strict=True))
        print(
            f"{name:20} {big:8.2f} {fresh:15.2f} {small:14.2f} {small / fresh:12.3f} "
            f"{small / big:12.3f}   (goal for made/built: at most {GOAL})"
        )


if __name__ == "__main__":
    main()

"""How the time of a whole call grows: with depth, with width, with calls, and with what is joined.

    python benchmarks/speedup_growth.py

`prune(...)`, `unwrap` and `shrink(...)` without its proof, in CPU seconds of one thread, over what
it should grow with: the layers of a decoder, the weights of a wide one, the calls of a chain of
small layers, and the channels that a DenseNet joins; microseconds for each are printed. Where they
rise with the size, there is a bend. Each row is a process of its own, which has pruned something
small before.
"""

import argparse
import json
import os
import subprocess
import sys
from time import process_time
from typing import Any

import torch
from models import Decoder
from torch import nn
from whole_call import torchvision

import prune_core

SIZES = {
    "layers": (12, 24, 48, 96, 192),
    "width": (1024, 2048, 4096, 8192),
    "calls": (1250, 2500, 5000, 10_000),
    "densenet": (121, 169, 201, 264),
}
DENSE = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}


def build(kind: str, size: int) -> tuple[nn.Module, Any, float]:
    """A model, its input, and what its time is divided by."""
    torch.manual_seed(0)
    if kind == "layers":
        return Decoder(size, 256).eval(), torch.randint(0, 1000, (1, 64)), size
    if kind == "width":
        model = Decoder(1, size).eval()
        return model, torch.randint(0, 1000, (1, 64)), sum(p.numel() for p in model.parameters())
    if kind == "calls":
        # Six calls: a layer takes two, for its weight is transposed, and there are two beside them.
        model = nn.Sequential(*[Residual() for _ in range(size // 6)])
        return model, torch.rand(2, 16), size
    model = torchvision().models.DenseNet(32, DENSE[size], 64).eval()
    joined = sum(each.num_features for each in model.modules() if isinstance(each, nn.BatchNorm2d))
    return model, torch.randn(1, 3, 64, 64), joined


class Residual(nn.Module):
    """Adds what two small layers make of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.first(x).relu())


def call(model: nn.Module, inputs: Any) -> float:
    """The CPU seconds of the whole call."""
    start = process_time()
    wrapped, masks = prune_core.prune(model, "l1", sparsity=0.5, example_inputs=inputs)
    prune_core.shrink(prune_core.unwrap(wrapped), inputs, masks, verify=False)
    return process_time() - start


def measure(kind: str, size: int) -> dict[str, float]:
    """One row."""
    torch.set_num_threads(1)
    call(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), torch.rand(2, 4))
    model, inputs, units = build(kind, size)
    with torch.no_grad():
        model(inputs)
        start = process_time()
        model(inputs)
        forward = process_time() - start
    return {"units": units, "forward": forward, "seconds": call(model, inputs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=[*SIZES], help=", ".join(SIZES))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]))))
        return
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    print("             size  forward  whole call  for each  forwards")
    for kind in arguments.kinds:
        rows = []
        for size in SIZES[kind]:
            command = [sys.executable, __file__, "--one", kind, str(size)]
            row = json.loads(subprocess.check_output(command, text=True, env=alone))
            rows.append(row["seconds"] / row["units"] * 1e6)
            print(
                f"{kind:10} {size:6} {row['forward']:8.3f} {row['seconds']:11.2f} "
                f"{rows[-1]:9.4g} {row['seconds'] / row['forward']:9.1f}",
                flush=True,
            )
        print(f"{kind}: for each, the largest over the smallest {rows[-1] / rows[0]:.2f}")


if __name__ == "__main__":
    main()

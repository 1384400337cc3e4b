"""How the time and the memory of a speedup grow with depth: transformers of 12 to 96 layers.

    python benchmarks/speedup_depth.py

The time is all that `shrink` does, its proof included, in units of one forward of the same model,
so that a machine's speed cancels out; it should not grow with depth. Memory is the peak of the
process above what it held with the model loaded and run once, the model itself added, over the
model's size; goal: at most 2.5. Each row is a process of its own.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
from time import perf_counter

import torch
from models import Decoder

import prune_core

DEPTHS = (12, 24, 48, 96)


def peak() -> int:
    """Return the most memory that this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(depth: int, width: int) -> dict[str, float]:
    """Remove half of the units of a decoder of this depth."""
    torch.manual_seed(0)
    model = Decoder(depth, width).eval()
    inputs = torch.randint(0, 1000, (1, 64))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    with torch.no_grad():
        model(inputs)
        start = perf_counter()
        model(inputs)
        forward = perf_counter() - start
    before = peak()
    start = perf_counter()
    found = prune_core.units(model, inputs)
    labelled = perf_counter() - start
    pick = random.Random(0)
    labels = [x for group in found.groups for x in pick.sample(group.labels, len(group) // 2)]
    chosen = [found.unit(label) for label in labels]
    del found
    start = perf_counter()
    report = prune_core.shrink(model, inputs, units=chosen)
    seconds = perf_counter() - start
    return {
        "forward": forward,
        "units": labelled,
        "shrink": seconds,
        "engine": sum(v for k, v in report.seconds.items() if k != "verify"),
        "size": size,
        "memory": (peak() - before + size) / size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.width)))
        return
    print("layers   MB  forward  units  shrink with proof  without  ms a layer  memory/model")
    for depth in DEPTHS:
        command = [sys.executable, __file__, "--one", str(depth), "--width", str(arguments.width)]
        row = json.loads(subprocess.check_output(command, text=True))
        print(
            f"{depth:6} {row['size'] / 1e6:4.0f} {row['forward']:8.3f} {row['units']:6.2f} "
            f"{row['shrink']:18.2f} {row['engine']:8.2f} {row['engine'] / depth * 1e3:11.1f} "
            f"{row['memory']:13.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

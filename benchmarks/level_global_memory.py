"""Global level pruning of a stack of linear layers: peak memory and time, torch's beside it.

    python benchmarks/level_global_memory.py --parameters 350e6

Each has a fresh process of its own, which builds the model, prunes it once and says how long that
took, by how much its peak memory grew, and how large the masks are, both as multiples of the
weights' size. Goals: memory at most 0.4, masks at most 0.25, and a time below torch's.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from models import linear_stack
from torch import nn

OURS, THEIRS = "LevelPruner(mode='global')", "global_unstructured"
MEMORY_GOAL, MASKS_GOAL = 0.4, 0.25


def prune_with(tool: str, layers: nn.ModuleList) -> int:
    """Prune half of the weights, and return the size of the masks in bytes."""
    if tool == OURS:
        from prune_filter import LevelPruner

        rules = [{"total_sparsity": 0.5, "op_types": ["Linear"]}]
        _, masks = LevelPruner(layers, rules, mode="global").compress()
        tensors = [mask for entry in masks.values() for mask in entry.values()]
    else:
        from torch.nn.utils import prune

        pairs = [(layer, "weight") for layer in layers]
        prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.5)
        tensors = [layer.weight_mask for layer in layers]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure(tool: str, parameters: float) -> dict[str, float]:
    torch.manual_seed(0)
    layers = linear_stack(parameters)
    size = 4 * sum(parameter.numel() for parameter in layers.parameters())
    if tool == OURS:
        import prune_filter.level  # noqa: F401 - imports are not what is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    masks = prune_with(tool, layers)
    return {
        "seconds": time.perf_counter() - start,
        "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / size,
        "masks": masks / size,
        "parameters": size / 4,
    }


def in_a_process_of_its_own(tool: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--tool", tool]
    for name in ("parameters", "threads"):
        command += [f"--{name}", str(getattr(arguments, name))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=float, default=50e6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tool", choices=[OURS, THEIRS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.tool:
        print(json.dumps(measure(arguments.tool, arguments.parameters)))
        return
    results = {tool: in_a_process_of_its_own(tool, arguments) for tool in (OURS, THEIRS)}
    ours, theirs = results[OURS], results[THEIRS]
    print(f"{ours['parameters'] / 1e6:.0f}M weights, half of them pruned")
    for tool, result in results.items():
        print(
            f"{tool:28} {result['seconds']:7.2f} s   peak +{result['memory']:.2f}x the weights   "
            f"masks {result['masks']:.2f}x"
        )
    print(
        f"goals: memory {ours['memory']:.2f} (at most {MEMORY_GOAL}), masks {ours['masks']:.2f} "
        f"(at most {MASKS_GOAL}), time over torch's {ours['seconds'] / theirs['seconds']:.2f} "
        "(below 1)"
    )


if __name__ == "__main__":
    main()

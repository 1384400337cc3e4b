"""What a model of a billion parameters takes: CPU seconds in forwards, and memory in models.

    pip install torch transformers ./packages/prune-core ./packages/prune-toolkit \
        ./packages/prune-speedup
    python benchmarks/one_billion.py

A Llama with random weights in bfloat16 loses half of its hidden units and heads: `prune`, `unwrap`
and `shrink` with its proof, as a user writes them, on one thread. The memory is what the process
cannot give back (`RssAnon` of Linux), the most of it at any moment, the model's own included. A
processor that multiplies bfloat16 itself does so several times faster than single precision, in
which the proof works; so a forward is measured in both.
"""

import argparse
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time, sleep

import torch
from torch import nn
from whole_call import versions

GIB = 2**30


def own_memory() -> int:
    """The bytes of this process that the system cannot take back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--results", type=Path, help="a file to which what was measured is added")
    arguments = parser.parse_args()

    from transformers import LlamaConfig, LlamaForCausalLM

    from prune_core import prune, shrink, unwrap

    torch.set_num_threads(1)
    torch.manual_seed(0)
    prune_tiny(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=arguments.hidden,
        intermediate_size=11 * arguments.hidden // 4 // 8 * 8,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 64,
        num_key_value_heads=arguments.hidden // 64,
        dtype="bfloat16",
    )
    without = own_memory()
    model = LlamaForCausalLM(config).bfloat16().eval()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    inputs = {"input_ids": torch.arange(arguments.tokens)[None]}
    most, done = 0, False

    def look() -> None:
        nonlocal most
        while not done:
            most = max(most, own_memory() - without)
            sleep(0.005)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    spent, wall = process_time(), perf_counter()
    wrapped, masks = prune(model, "l1", sparsity=0.5, example_inputs=inputs)
    pruned = process_time() - spent
    report = shrink(unwrap(wrapped), inputs, masks)
    spent, wall, done = process_time() - spent, perf_counter() - wall, True
    watcher.join()
    after = own_memory() - without
    # Last, for what forwards and a copy of the model leave behind is no memory of the call.
    model = LlamaForCausalLM(config).bfloat16().eval()
    forward, single = timed(model, inputs), timed(model.float(), inputs)
    print(f"{sum(report.parameters[:1]) / 1e9:.2f} B parameters, {size / GIB:.2f} GiB")
    print(f"a forward {forward:.2f} CPU s, in single precision {single:.2f}")
    print(f"all {spent:.2f} CPU s, {wall:.2f} s by the clock: {spent / forward:.1f} forwards, or")
    print(f"{spent / single:.1f} in single precision")
    print(f"of it pruning {pruned:.2f}; shrinking {report.seconds}")
    print(f"memory at most {most / GIB:.2f} GiB, {most / size:.2f} times the model")
    print(f"afterwards {after / size:.2f} times it, with the masks")
    if arguments.results:
        row = {
            "network": "one_billion",
            "way": "proved",
            "busy": round(os.getloadavg()[0]),
            "day": f"{datetime.now(UTC):%Y-%m-%d}",
            "versions": versions(),
            "parameters": report.parameters[0] / 1e9,
            "tokens": arguments.tokens,
            "forward": forward,
            "single": single,
            "seconds": spent,
            "forwards": spent / forward,
            "in_single": spent / single,
            "peak": most / size,
            "after": after / size,
        }
        with arguments.results.open("a") as file:
            print(json.dumps(row), file=file)
    print(f"left {report.parameters[1] / report.parameters[0]:.3f} of the parameters")


def timed(model: nn.Module, inputs: dict[str, torch.Tensor]) -> float:
    """Return the CPU seconds of a forward, the least of three."""
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            start = process_time()
            model(**inputs)
            seconds.append(process_time() - start)
    return min(seconds)


def prune_tiny(model: nn.Module) -> None:
    """Pay for imports."""
    from prune_core import prune, shrink, unwrap

    wrapped, masks = prune(model, "l1", sparsity=0.5, example_inputs=torch.rand(1, 4))
    shrink(unwrap(wrapped), torch.rand(1, 4), masks)


if __name__ == "__main__":
    main()

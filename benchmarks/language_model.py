"""What each criterion leaves of a trained transformer, without any training afterwards.

A Llama of 2 M parameters learns the bytes of a text. Then it is pruned, by each criterion, with and
without least squares, and the loss on the last tenth of the text is measured, which nothing else
has seen. `python benchmarks/language_model.py --text tinyshakespeare.txt` trains it, keeps it under
`--model`, and prints the tables of `docs/choosing.md`; it needs transformers. Each criterion is
given the same calibration data, drawn with the seeds `0, 1, …`; means and, in brackets, the
distance between the best and the worst are printed.
"""

import argparse
import copy
import itertools
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from byte_text import LENGTH, Text
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import prune_core
from prune_core.registry import get_pruner

CHANNELS = (
    "random",
    "l1",
    "l2",
    "fpgm",
    "taylorfo",
    "group_taylor",
    "mean_activation",
    "activation_norm",
    "flap",
    "channel_obs",
)
FITS: dict[str, Any] = {"alone": None, "and least squares": "least_squares"}
LEAST_SQUARES = {"reconstruct": "least_squares"}
WEIGHTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("`level`, `nm`", "level", {}),
    ("the same and least squares", "level", LEAST_SQUARES),
    ("`wanda`", "wanda", {}),
    ('the same, `mode="normal"`', "wanda", {"mode": "normal"}),
    ("`wanda` and least squares", "wanda", LEAST_SQUARES),
    ("`ria`", "ria", {}),
    ("`sparsegpt`", "sparsegpt", {}),
    ("the same, `sequential=False`", "sparsegpt", {"sequential": False}),
    ("`alps`", "alps", {}),
)
PATTERNS: dict[str, tuple[float, dict[str, int]]] = {
    "50 %": (0.5, {}),
    "2:4": (0.5, {"n": 2, "m": 4}),
    "70 %": (0.7, {}),
}


def network() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=LENGTH,
        use_cache=False,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def trained(text: Text, path: Path, steps: int) -> LlamaForCausalLM:
    model = network()
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.05)
    began = time.perf_counter()
    for step, batch in enumerate(itertools.islice(text.batches(24, seed=0), steps)):
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            seconds = time.perf_counter() - began
            print(f"step {step}: {loss.item():.3f}, {seconds:.0f} s", flush=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return model.eval()


@torch.no_grad()
def loss_of(model: nn.Module, text: Text, count: int = 128) -> float:
    pieces = text.held_out[: count * LENGTH].view(count, LENGTH).split(32)
    losses = [model(input_ids=piece, labels=piece).loss.item() for piece in pieces]
    return statistics.mean(losses)


def calibration(text: Text, seed: int, backward: bool) -> Callable[[nn.Module], None]:
    batches = list(itertools.islice(text.batches(8, seed=1000 + seed), 8))

    def calibrate(model: nn.Module) -> None:
        for batch in batches:
            with torch.set_grad_enabled(backward):
                loss = model(input_ids=batch, labels=batch).loss
            if backward:
                loss.backward()

    return calibrate


def pruned(
    dense: nn.Module, text: Text, algorithm: str, seeds: int, layers: list[str], **options: Any
) -> str:
    """Prune copies and return the loss that is left."""
    pruner = get_pruner(algorithm, framework="torch")
    data = pruner.needs_data or options.get("reconstruct")
    losses = []
    for seed in range(seeds if data or algorithm == "random" else 1):
        if data:
            options["calibrate"] = calibration(text, seed, pruner.needs_labels)
        if algorithm == "random":
            options["generator"] = torch.Generator().manual_seed(seed)
        model, _ = prune_core.prune(copy.deepcopy(dense), algorithm, targets=layers, **options)
        losses.append(loss_of(model, text))
    return spread(losses)


def spread(losses: list[float]) -> str:
    apart = max(losses) - min(losses)
    mean = f"{statistics.mean(losses):.3f}"
    return f"{mean} ({apart:.3f})" if apart > 5e-4 else mean


def table(head: list[str], rows: list[list[str]]) -> None:
    print("\n| " + " | ".join(head) + " |\n| --- |" + " --: |" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def channels(dense: nn.Module, text: Text, seeds: int) -> None:
    names = [n for n, _ in dense.named_modules() if n.endswith(("gate_proj", "up_proj"))]
    example = {"input_ids": next(text.batches(1, seed=0))}
    rows = []
    for algorithm in CHANNELS:
        row = [f"`{algorithm}`"]
        for sparsity, fit in itertools.product((0.2, 0.4), FITS.values()):
            how = {"sparsity": sparsity, "reconstruct": fit, "example_inputs": example}
            row.append(pruned(dense, text, algorithm, seeds, names, **how))
            print(*row, flush=True)
        rows.append(row)
    heads = [f"{ratio}, {fit}" for ratio in ("20 %", "40 %") for fit in FITS]
    table(["hidden channels of all FFNs", *heads], rows)


def weights(dense: nn.Module, text: Text, seeds: int) -> None:
    names = [
        name
        for name, module in dense.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    ]
    rows = []
    for shown, algorithm, options in WEIGHTS:
        row = [shown]
        for sparsity, pattern in PATTERNS.values():
            if pattern and "mode" in options:
                row.append("")
                continue
            name = "nm" if algorithm == "level" and pattern else algorithm
            how: dict[str, Any] = {"sparsity": sparsity, **pattern, **options}
            row.append(pruned(dense, text, name, seeds, names, **how))
            print(*row, flush=True)
        rows.append(row)
    table(["single weights of all blocks", *PATTERNS], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, required=True, help="a text of 1 MB or more")
    parser.add_argument("--model", type=Path, default=Path("language_model.safetensors"))
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--seeds", type=int, default=2, help="how many calibration sets")
    parser.add_argument("--only", choices=("channels", "weights"), help="one of the two tables")
    given = parser.parse_args()
    warnings.simplefilter("ignore", prune_core.PruneWarning)
    text = Text(given.text)
    dense = trained(text, given.model, given.steps)
    loss = loss_of(dense, text)
    print(f"dense: {loss:.3f} per byte, {loss / math.log(2):.2f} bits")
    if given.only != "weights":
        channels(dense, text, given.seeds)
    if given.only != "channels":
        weights(dense, text, given.seeds)


if __name__ == "__main__":
    main()

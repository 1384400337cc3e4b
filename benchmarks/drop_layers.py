"""What each criterion leaves of a trained transformer that loses whole layers.

A Llama of eight layers learns the bytes of a text. Then one to three layers are taken out, chosen
by each criterion on the same calibration data, and the loss on the last tenth of the text is
measured, which nothing else has seen, before and after a short healing. Means over three draws of
calibration data; of `random`, over five draws of layers.

    python benchmarks/drop_layers.py --text tinyshakespeare.txt --folder /tmp/drop_layers

It needs transformers and prune-blocks, and prints the table of `docs/algorithms/blocks.md`.
"""

import argparse
import copy
import math
import random
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import prune_core

LENGTH, BATCH, STEPS, HEALING = 64, 12, 1000, 40
COUNTS = (1, 2, 3)
CRITERIA = ("block_influence", "angular_distance", "leave_one_out")


def network() -> LlamaForCausalLM:
    """The model, before it has learned anything."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=8,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def text(path: Path) -> tuple[Tensor, Tensor]:
    """Bytes to learn from, and the last tenth."""
    data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8).long()
    cut = len(data) * 9 // 10
    return data[:cut], data[cut:]


def batches(data: Tensor, count: int, seed: int) -> Iterator[Tensor]:
    """Random pieces of the text."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(count):
        starts = torch.randint(len(data) - LENGTH, (BATCH,), generator=draw)
        yield torch.stack([data[start : start + LENGTH] for start in starts])


def train(model: LlamaForCausalLM, data: Tensor, steps: int, rate: float, seed: int) -> None:
    """Let a model learn."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for step, tokens in enumerate(batches(data, steps, seed)):
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if steps > 200 and not step % 50:
            print(f"step {step}: {loss.item():.3f}", flush=True)
    model.eval()


@torch.no_grad()
def loss_of(model: LlamaForCausalLM, data: Tensor) -> float:
    """The mean loss on the same held-out pieces, in nats for each byte."""
    model.eval()
    return statistics.mean(
        model(input_ids=tokens, labels=tokens).loss.item() for tokens in batches(data, 16, 999)
    )


def dropped(model: LlamaForCausalLM, criterion: str, count: int, calib: list[Tensor], seed: int):
    """A copy of the model that has lost layers."""
    small = copy.deepcopy(model)
    inputs = {"input_ids": calib[0], "labels": calib[0]}
    if criterion == "random":
        blocks = prune_core.blocks(small, inputs).of_kind("block")
        chosen = random.Random(seed).sample(blocks, count)
        prune_core.remove_blocks(small, inputs, chosen, verify=False)
        return small
    data = [{"input_ids": tokens, "labels": tokens} for tokens in calib]
    prune_core.prune(small, criterion, count=count, example_inputs=inputs, data=data)
    return small


def main() -> None:
    """Train the model or load it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--train", action="store_true", help="only train the model")
    options = parser.parse_args()
    torch.manual_seed(0)
    learned, held = text(options.text)
    folder = options.folder
    if not (folder / "config.json").exists():
        model = network()
        start = time.process_time()
        train(model, learned, STEPS, 2e-3, 0)
        print(f"{time.process_time() - start:.0f} s of processor time")
        model.save_pretrained(folder)
    if options.train:
        return
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    print(f"dense: {loss_of(model, held):.3f}")
    warnings.simplefilter("ignore")
    print("| criterion |" + "".join(f" {n} of 8 | healed |" for n in COUNTS))
    for criterion in ("random", *CRITERIA):
        cells = []
        for count in COUNTS:
            found = []
            for seed in range(5 if criterion == "random" else 3):
                calib = [*batches(learned, 4, 10 + seed)]
                small = dropped(model, criterion, count, calib, seed)
                before = loss_of(small, held)
                train(small, learned, HEALING, 5e-4, 100 + seed)
                found.append((before, loss_of(small, held)))
            cells += [f"{statistics.mean(column):.2f}" for column in zip(*found, strict=True)]
            if any(math.isnan(value) for pair in found for value in pair):
                raise ArithmeticError(f"{criterion} at {count}: not a number")
        print(f"| `{criterion}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

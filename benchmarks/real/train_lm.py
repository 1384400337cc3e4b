"""Train the small language model that run.py prunes: a Llama of 5 M parameters that knows bytes.

    python benchmarks/real/train_lm.py --text tinyshakespeare.txt

No package ships a causal language model that is small enough for these tables, so one is made: the
text is named by its hash, and what is done with it is written here. The weights are kept beside
this file, in a folder that git ignores, with a copy of the text. It takes about ten minutes of one
core.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tasks.language import FOLDER, Text, network
from torch import nn

SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
"""Of the text: the 1,115,394 bytes of Shakespeare's plays known as tinyshakespeare."""
STEPS, BATCH, RATE, WARM, DECAY, SEED = 400, 24, 2e-3, 0.05, 0.1, 0


def train(text: Text, steps: int) -> nn.Module:
    """Train the network from a fixed seed on nine tenths of a text."""
    torch.manual_seed(SEED)
    model = network()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, weight_decay=DECAY, betas=(0.9, 0.95)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=WARM)
    began = time.process_time()
    for step, batch in enumerate(itertools.islice(text.batches(BATCH, SEED), steps)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            spent = time.process_time() - began
            print(f"step {step}: loss {loss.item():.3f}, {spent:.0f} s of CPU", flush=True)
    return model


def main() -> None:
    """Train the model and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    found = hashlib.sha256(given.text.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{given.text} is another text: its sha256 is {found}, not {SHA256}.")
    FOLDER.mkdir(exist_ok=True)
    shutil.copyfile(given.text, FOLDER / "text.txt")
    model = train(Text(given.text), given.steps)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, FOLDER / "model.safetensors", {"steps": str(given.steps)})


if __name__ == "__main__":
    main()

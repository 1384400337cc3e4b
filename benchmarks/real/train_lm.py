"""Train the small language model that the benchmark prunes: a Llama of 5.5 million parameters.

    python benchmarks/real/train_lm.py FOLDER --text TEXTS

`TEXTS` is a folder with plain text files; bytes are tokens. The last tenth of each file is held out.
FOLDER gets the model as transformers saves it, and `recipe.json`: the hash of the data, every
setting, and the loss on the held-out bytes, in nats each. An hour on two cores.
"""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor

CONTEXT, BATCH, STEPS = 256, 24, 1500
RATE, WARM_UP, DECAY = 1e-3, 100, 0.1
HELD_OUT = 0.1
SHAPE = {
    "vocab_size": 256,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
}


def texts(folder: Path) -> tuple[Tensor, list[Tensor], str]:
    """The bytes to learn from, the held-out ones of each file, and a hash of all of them."""
    digest = hashlib.sha256()
    learned, held_out = [], []
    for file in sorted(folder.glob("*.txt")):
        content = file.read_bytes()
        digest.update(content)
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        cut = int(len(data) * (1 - HELD_OUT))
        learned.append(data[:cut])
        held_out.append(data[cut:])
    if not learned:
        raise SystemExit(f"{folder} has no .txt files.")
    return torch.cat(learned), held_out, digest.hexdigest()


def windows(data: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random pieces of a text, one byte longer than the context."""
    starts = torch.randint(len(data) - CONTEXT - 1, (count, 1), generator=generator)
    return data[starts + torch.arange(CONTEXT + 1)].long()


def loss_of(model: torch.nn.Module, pieces: Tensor) -> Tensor:
    logits = model(input_ids=pieces[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: torch.nn.Module, held_out: list[Tensor], count: int = 64) -> float:
    """The mean loss of a byte, each file counting the same."""
    generator = torch.Generator().manual_seed(2**31 - 1)
    each = [float(loss_of(model, windows(data, count, generator))) for data in held_out]
    return sum(each) / len(each)


def rate_at(step: int) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    if step < WARM_UP:
        return RATE * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(STEPS - WARM_UP, 1)
    return RATE * (0.55 + 0.45 * math.cos(math.pi * done))


def main() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    arguments = parser.parse_args()
    data, held_out, digest = texts(arguments.text)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    generator = torch.Generator().manual_seed(0)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    began = time.monotonic()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        loss = loss_of(model, windows(data, BATCH, generator))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == STEPS - 1:
            seconds = time.monotonic() - began
            print(f"step {step:5}  loss {float(loss):.3f}  {seconds:6.0f} s", flush=True)
    model.eval()
    reached = held_out_loss(model, held_out)
    model.save_pretrained(arguments.folder)
    recipe = {
        "data_sha256": digest,
        "shape": SHAPE,
        "steps": STEPS,
        "batch": BATCH,
        "context": CONTEXT,
        "rate": RATE,
        "weight_decay": DECAY,
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out_loss": round(reached, 4),
    }
    (arguments.folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")
    print(f"held-out loss {reached:.4f} nats per byte")


if __name__ == "__main__":
    main()

"""What a language model loses with its experts, by each criterion, without training afterwards.

A Mixtral with 16 experts in each of four layers, two to a token, learns the bytes of a text. Then a
share of the experts of each layer is removed and the loss on the last tenth of the text is
measured, which nothing else has seen.
`python benchmarks/experts.py --text tinyshakespeare.txt` trains it, keeps it under `--models`, and
prints the table of `docs/guides/experts.md`; it needs transformers. Everything is done for each of
`--seeds` models, and means are printed, with the distance between the best and the worst in
brackets.
"""

import argparse
import copy
import itertools
import statistics
import time
from pathlib import Path

import torch
from byte_text import LENGTH, Text
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

import prune_core

CRITERIA = ("random", "expert_frequency", "expert_activation", "reap")
SHARES = (0.25, 0.5)


def network(seed: int) -> MixtralForCausalLM:
    config = MixtralConfig(
        vocab_size=256,
        hidden_size=96,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_local_experts=16,
        num_experts_per_tok=2,
        max_position_embeddings=LENGTH,
        router_aux_loss_coef=0.01,
        use_cache=False,
    )
    torch.manual_seed(seed)
    return MixtralForCausalLM(config)


def train(model: nn.Module, text: Text, steps: int, rate: float, seed: int) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.05)
    began = time.process_time()
    for step, batch in enumerate(itertools.islice(text.batches(16, seed), steps)):
        loss = model(input_ids=batch, labels=batch, output_router_logits=True).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(
                f"step {step}: {loss.item():.3f}, {time.process_time() - began:.0f} s", flush=True
            )
    model.eval()


def trained(text: Text, folder: Path, seed: int, steps: int) -> MixtralForCausalLM:
    model, path = network(seed), folder / f"experts-{seed}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    train(model, text, steps, 3e-3, seed)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return model


@torch.no_grad()
def loss_of(model: nn.Module, text: Text, count: int = 128) -> float:
    pieces = text.held_out[: count * LENGTH].view(count, LENGTH).split(32)
    return statistics.mean(model(input_ids=one, labels=one).loss.item() for one in pieces)


def smaller(dense: nn.Module, text: Text, criterion: str, share: float, seed: int) -> nn.Module:
    model = copy.deepcopy(dense)
    data = list(itertools.islice(text.batches(8, seed=1000 + seed), 8))
    if criterion == "random":
        draws = torch.Generator().manual_seed(seed)
        gone = {
            mixture.name: torch.randperm(mixture.experts, generator=draws).tolist()[
                : int(share * mixture.experts)
            ]
            for mixture in prune_core.experts(model, data[0])
        }
        prune_core.remove_experts(model, data[0], gone)
        return model
    prune_core.prune(model, criterion, sparsity=share, data=data, example_inputs=data[0])
    return model


def spread(losses: list[float]) -> str:
    distance = max(losses) - min(losses)
    return f"{statistics.mean(losses):.3f}" + (f" ({distance:.3f})" if len(losses) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path())
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    text = Text(options.text)
    models = [trained(text, options.models, seed, options.steps) for seed in range(options.seeds)]
    print("dense:", spread([loss_of(model, text) for model in models]))
    print(f"| | {' | '.join(f'{share:.0%}' for share in SHARES)} |")
    print(f"| --- |{' --: |' * len(SHARES)}")
    for criterion in CRITERIA:
        cells = [
            spread(
                [
                    loss_of(smaller(model, text, criterion, share, seed), text)
                    for seed, model in enumerate(models)
                ]
            )
            for share in SHARES
        ]
        print(f"| `{criterion}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

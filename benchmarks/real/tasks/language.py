"""The next byte of Shakespeare, by the small Llama that train_lm.py has trained."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from byte_text import LENGTH, Text

FOLDER = Path(__file__).parents[1] / ".language"
BLOCKS = 6
BATCH, TESTED = 8, 256
EACH = 32


def network() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=BLOCKS,
        num_attention_heads=8,
        max_position_embeddings=LENGTH,
        use_cache=False,
    )
    model: nn.Module = LlamaForCausalLM(config)
    return model


class Language:
    """Loss on pieces of the last tenth of the text, which nothing was trained on."""

    name: ClassVar[str] = "Llama of 5 M"
    metric: ClassVar[str] = "loss per byte of held-out text"
    higher_is_better: ClassVar[bool] = False
    exclude: ClassVar[tuple[str, ...]] = ("lm_head",)
    fixed_for_others: ClassVar[tuple[str, ...]] = ()
    of_all_flops: ClassVar[bool] = False
    feed_forward: ClassVar[tuple[str, ...]] = tuple(
        f"model.layers.{n}.mlp.{name}" for n in range(BLOCKS) for name in ("gate_proj", "up_proj")
    )
    linear: ClassVar[tuple[str, ...]] = tuple(
        f"model.layers.{n}.{name}"
        for n in range(BLOCKS)
        for name in (
            *(f"self_attn.{letter}_proj" for letter in "qkvo"),
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
        )
    )
    calibration: ClassVar[int] = 8
    learning_rate: ClassVar[float] = (
        1e-4  # with more, what is hardly worse than before becomes worse
    )
    compare: ClassVar[str] = "kl"

    def __init__(self) -> None:
        if not (FOLDER / "model.safetensors").exists():
            raise SystemExit(
                "This benchmark needs a model that it does not have yet: "
                "python benchmarks/real/train_lm.py --text tinyshakespeare.txt"
            )
        self._text = Text(FOLDER / "text.txt")

    def model(self) -> nn.Module:
        from safetensors.torch import load_file

        model = network()
        model.load_state_dict(load_file(FOLDER / "model.safetensors"))
        return model.eval()

    def example(self) -> dict[str, Tensor]:
        return {"input_ids": next(self._text.batches(2, seed=0))}

    def batches(self, seed: int) -> Iterator[Tensor]:
        return self._text.batches(BATCH, seed + 1)  # 0 is what it was trained with

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        found: Tensor = model(input_ids=batch, labels=batch).loss
        return found

    @torch.no_grad()
    def quality(self, model: nn.Module) -> float:
        pieces = self._text.held_out[: TESTED * LENGTH].view(TESTED, LENGTH).split(EACH)
        return statistics.mean(self.loss(model, piece).item() for piece in pieces)

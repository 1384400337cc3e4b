"""A small Llama, trained by `train_lm.py` on public texts; it has to be trained before.

`REAL_LM` names the folder that it was saved to, `REAL_TEXT` the folder of the texts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from train_lm import BATCH, CONTEXT, held_out_loss, loss_of, texts, windows

TESTED = 64


class Language:
    """The next byte of Shakespeare and of Wikipedia; half of the held-out pieces are of each."""

    name: ClassVar[str] = "Llama, 6 M"
    metric: ClassVar[str] = "loss in nats per byte"
    larger_is_better: ClassVar[bool] = False
    exclude: ClassVar[tuple[str, ...]] = ("lm_head", "model.embed_tokens")
    seconds_of_tuning: ClassVar[float] = 120.0

    def __init__(self) -> None:
        for variable in ("REAL_LM", "REAL_TEXT"):
            if variable not in os.environ:
                raise SystemExit(f"Set {variable}: see benchmarks/real/train_lm.py.")
        self._learned, self._held_out, _ = texts(Path(os.environ["REAL_TEXT"]))

    def model(self) -> nn.Module:
        from transformers import LlamaForCausalLM

        model: nn.Module = LlamaForCausalLM.from_pretrained(os.environ["REAL_LM"]).eval()
        return model

    def example(self) -> dict[str, Tensor]:
        pieces = windows(self._learned, 2, torch.Generator().manual_seed(0))
        return {"input_ids": pieces[:, : CONTEXT // 2]}

    def batches(self, seed: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield windows(self._learned, BATCH, generator)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return loss_of(model, batch)

    def quality(self, model: nn.Module) -> float:
        return held_out_loss(model, self._held_out, TESTED)

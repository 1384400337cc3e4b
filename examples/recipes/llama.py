"""What examples/recipes/llama.yaml names: a Llama of random weights, and random tokens."""

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

WORDS = 64


def make() -> nn.Module:
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


def batches() -> list[dict[str, Tensor]]:
    return [{"input_ids": torch.randint(WORDS, (4, 16))} for _ in range(4)]


def labelled() -> list[dict[str, Tensor]]:
    return [{**batch, "labels": batch["input_ids"]} for batch in batches()]


def others() -> list[dict[str, Tensor]]:
    return labelled()[:1]


def loss(model: nn.Module) -> float:
    batch = labelled()[0]
    return model(**batch).loss.item()

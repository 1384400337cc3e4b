"""Experts, a layer and channels of one model, each in its turn, and the result as users hold it."""

import copy

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

from transformers import MixtralConfig, MixtralForCausalLM

from prune_core import load_pruned, remove_blocks, remove_experts, shrink, units

MIXTURES = [f"model.layers.{layer}.mlp" for layer in range(4)]


def mixtral():
    torch.manual_seed(0)
    config = MixtralConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        vocab_size=50,
    )
    return MixtralForCausalLM(config).eval()


def test_one_after_the_other(tmp_path):
    model, x = mixtral(), {"input_ids": torch.arange(18).reshape(2, 9)}
    remove_experts(model, x, {name: [1] for name in MIXTURES})
    remove_blocks(model, x, ["model.layers.1"])
    found = units(model, x)
    inner = [group for group in found.groups if "experts" in group.name]
    half = [found.unit(label) for group in inner for label in group.labels[::2]]
    report = shrink(model, x, units=half)
    assert report.flops[1] < 0.8 * report.flops[0], "products of experts are counted"
    config = model.config
    assert (config.num_local_experts, config.num_hidden_layers) == (3, 3)
    assert config.intermediate_size == 24
    with torch.no_grad():
        expected = model(**x).logits
        report.save(tmp_path / "small.safetensors")
        model.save_pretrained(tmp_path / "folder")
        for taken in (
            copy.deepcopy(model),
            load_pruned(mixtral(), tmp_path / "small.safetensors"),
            MixtralForCausalLM.from_pretrained(tmp_path / "folder").eval(),
        ):
            assert torch.equal(taken(**x).logits, expected)
    asked = {**x, "attention_mask": torch.ones_like(x["input_ids"]), "max_new_tokens": 5}
    cached, whole = (
        model.generate(**asked, do_sample=False, pad_token_id=0, use_cache=cache)
        for cache in (True, False)
    )
    assert torch.equal(cached, whole)

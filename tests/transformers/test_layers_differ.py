"""A smaller model whose layers differ says so in its config, and is loaded from a folder again."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    UMT5Config,
    UMT5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

import prune_core
from prune_core.errors import SpeedupError

pytestmark = pytest.mark.filterwarnings("ignore:.*config cannot describe:prune_core.PruneWarning")

TOKENS = torch.arange(2, 14).reshape(2, 6)
# Weights so large that attention is more than a mean: a wrong number of heads must show.
LARGE = {"initializer_range": 0.3}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


def llama(layers=3):
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=32,
        **LARGE, **SPECIAL,
    )  # fmt: skip
    return LlamaForCausalLM(config), {"input_ids": TOKENS}


def qwen2_moe():
    config = Qwen2MoeConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=32, num_experts=4,
        moe_intermediate_size=24, shared_expert_intermediate_size=40, **LARGE, **SPECIAL,
    )  # fmt: skip
    return Qwen2MoeForCausalLM(config), {"input_ids": TOKENS}


def gpt2():
    config = GPT2Config(
        vocab_size=50, n_embd=48, n_layer=3, n_head=4, n_positions=32, **LARGE, **SPECIAL
    )
    return GPT2LMHeadModel(config), {"input_ids": TOKENS}


def vit():
    config = ViTConfig(
        hidden_size=48, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
        image_size=16, patch_size=8, **LARGE,
    )  # fmt: skip
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return ViTForImageClassification(config), {"pixel_values": pixels}


def bert():
    config = BertConfig(
        vocab_size=50, hidden_size=48, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=32, **LARGE,
    )  # fmt: skip
    return BertForSequenceClassification(config), {"input_ids": TOKENS}


def umt5():
    config = UMT5Config(
        vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        decoder_start_token_id=0, initializer_factor=0.3, **SPECIAL,
    )  # fmt: skip
    return UMT5ForConditionalGeneration(config), {"input_ids": TOKENS, "decoder_input_ids": TOKENS}


def nllb_moe():
    # Of its layers, every second one is a mixture.
    config = NllbMoeConfig(
        vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48,
        decoder_ffn_dim=48, encoder_attention_heads=4, decoder_attention_heads=4, num_experts=4,
        encoder_sparse_step=2, decoder_sparse_step=2, max_position_embeddings=32,
        decoder_start_token_id=0, init_std=0.3, **SPECIAL,
    )  # fmt: skip
    model = NllbMoeForConditionalGeneration(config)
    return model, {"input_ids": TOKENS, "decoder_input_ids": TOKENS}


def uneven(build, *targets):
    """A small model whose layers have lost more the earlier they come."""
    torch.manual_seed(0)
    model, inputs = build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            layer = next((int(part) for part in name.split(".") if part.isdigit()), 0)
            parameter.mul_(1 + 0.3 * layer)
    options = {"targets": targets} if targets else {}
    _, masks = prune_core.prune(
        model.eval(), "l1", sparsity=0.4, mode="global", example_inputs=inputs, **options
    )
    report = prune_core.shrink(prune_core.unwrap(model), inputs, masks)
    return model, inputs, report


def first_output(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


@pytest.mark.parametrize(
    ("build", "targets", "name"),
    [
        (llama, (), "num_key_value_heads"),
        (qwen2_moe, (), "shared_expert_intermediate_size"),
        (gpt2, ("transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_fc"), "n_inner"),
        (vit, (), "intermediate_size"),
        (bert, ("bert.encoder.layer.0.intermediate.dense",), "intermediate_size"),
    ],
)
def test_the_config_says_in_what_layers_differ(build, targets, name, tmp_path):
    model, inputs, report = uneven(build, *targets)
    assert report.config is not None
    assert not report.config.missing
    assert f"{name} by layer" in " ".join(str(report).split())
    model.save_pretrained(tmp_path)

    said = json.loads((tmp_path / "config.json").read_text())["per_layer_config"]
    assert any(name in layer for layer in said.values())
    loaded = prune_core.from_pretrained(tmp_path)
    assert type(loaded) is build()[0].__class__
    expected = first_output(model, inputs)
    assert torch.equal(first_output(loaded, inputs), expected)
    for again in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert torch.equal(first_output(again, inputs), expected)


@pytest.mark.parametrize(
    ("build", "parts", "names"),
    [
        (umt5, ("Attention", "wi_"), {"num_heads", "d_ff"}),
        (nllb_moe, ("fc1",), {"encoder_ffn_dim", "decoder_ffn_dim"}),
    ],
)
def test_layers_of_an_encoder_and_a_decoder_are_said_together(build, parts, names, tmp_path):
    torch.manual_seed(0)
    model, inputs = build()
    found = prune_core.units(model.eval(), inputs)
    chosen = []
    for group in found.groups:
        name = min(found.unit(group.labels[0]).slices)
        if any(part in name for part in parts):
            layer = int(next(part for part in name.split(".") if part.isdigit()))
            chosen += [found.unit(label) for label in group.labels[: len(group) // (4 - 2 * layer)]]
    prune_core.shrink(model, inputs, units=chosen)
    model.save_pretrained(tmp_path)

    said = json.loads((tmp_path / "config.json").read_text())["per_layer_config"]
    assert {name for layer in said.values() for name in layer} == names
    loaded = prune_core.from_pretrained(tmp_path)
    assert torch.equal(first_output(loaded, inputs), first_output(model, inputs))
    assert {*loaded.state_dict()} == {*model.state_dict()}
    runs = [
        each.generate(TOKENS, max_new_tokens=6, do_sample=False, use_cache=cache)
        for each in (model, loaded)
        for cache in (True, False)
    ]
    assert all(torch.equal(run, runs[0]) for run in runs[1:])


@pytest.mark.parametrize("build", [llama, qwen2_moe])
def test_what_was_loaded_generates_the_same_with_a_cache_and_without(build, tmp_path):
    model, inputs, _ = uneven(build)
    model.save_pretrained(tmp_path)
    loaded = prune_core.from_pretrained(tmp_path)
    mask = torch.ones_like(TOKENS)
    runs = [
        each.generate(
            **inputs, attention_mask=mask, max_new_tokens=6, do_sample=False, use_cache=cache
        )
        for each in (model, loaded)
        for cache in (True, False)
    ]
    assert all(torch.equal(run, runs[0]) for run in runs[1:])


def test_a_fresh_process_loads_it_as_any_class_and_type(tmp_path):
    model, inputs, _ = uneven(llama)
    model.save_pretrained(tmp_path)
    torch.save(first_output(model, inputs), tmp_path / "expected.pt")
    script = f"""
import torch, prune_core
from transformers import AutoModelForCausalLM
folder = {str(tmp_path)!r}
model = prune_core.from_pretrained(folder, AutoModelForCausalLM)
tokens = torch.arange(2, 14).reshape(2, 6)
assert torch.equal(model(tokens)[0], torch.load(folder + "/expected.pt"))
half = prune_core.from_pretrained(folder, dtype=torch.bfloat16)
assert half.dtype is torch.bfloat16
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_our_loader_it_is_refused_and_not_loaded_wrongly(tmp_path):
    model, _, _ = uneven(llama)
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_what_was_loaded_can_be_pruned_and_lose_layers(tmp_path):
    model, inputs, _ = uneven(llama)
    model.save_pretrained(tmp_path / "first")
    model = prune_core.from_pretrained(tmp_path / "first")

    _, masks = prune_core.prune(model, "l1", sparsity=0.3, mode="global", example_inputs=inputs)
    report = prune_core.shrink(prune_core.unwrap(model), inputs, masks)
    assert report.parameters[1] < report.parameters[0]
    model.save_pretrained(tmp_path / "second")
    again = prune_core.from_pretrained(tmp_path / "second")
    assert torch.equal(first_output(again, inputs), first_output(model, inputs))

    last = copy.deepcopy(again.config.per_layer_config[2].to_dict())
    prune_core.remove_blocks(again, inputs, ["model.layers.1"])
    assert again.config.num_hidden_layers == 2
    assert again.config.per_layer_config[1].intermediate_size == last["intermediate_size"]
    again.save_pretrained(tmp_path / "third")
    fewer = prune_core.from_pretrained(tmp_path / "third")
    assert torch.equal(first_output(fewer, inputs), first_output(again, inputs))


def test_a_pruned_file_brings_the_same_config(tmp_path):
    model, inputs, report = uneven(llama)
    report.save(tmp_path / "small.safetensors")
    dense, _ = llama()
    prune_core.load_pruned(dense, tmp_path / "small.safetensors")
    assert dense.config.to_dict() == model.config.to_dict()
    assert torch.equal(first_output(dense.eval(), inputs), first_output(model, inputs))


def test_heads_that_no_config_can_describe_are_refused_with_the_way_out(tmp_path):
    # BERT's attention is as wide as the model: fewer heads would be wider ones.
    heads = [f"bert.encoder.layer.0.attention.self.{part}" for part in ("query", "key", "value")]
    model, _, report = uneven(bert, *heads)
    assert report.config is not None
    assert "no numbers of single layers" in report.config.missing
    with pytest.raises(SpeedupError, match="save_pruned"):
        model.save_pretrained(tmp_path)


def test_a_folder_without_a_known_class_is_refused(tmp_path):
    model, _ = llama()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for names in ([], ["NoSuchModel"]):
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": names}))
        with pytest.raises(SpeedupError, match="model_class="):
            prune_core.from_pretrained(tmp_path)


def test_what_is_no_folder_of_a_model_is_refused(tmp_path):
    for nowhere in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SpeedupError, match="holds no config.json"):
            prune_core.from_pretrained(nowhere)
    with pytest.raises(prune_core.ConfigError, match="folder is .*path of a folder"):
        prune_core.from_pretrained(llama()[0])


@pytest.mark.parametrize("mode", [None, "global"])
def test_a_head_that_is_the_embedding_asks_nothing_of_the_user(mode):
    model, inputs = gpt2()
    before = model.num_parameters()
    _, masks = prune_core.prune(
        model.eval(), "l1", sparsity=0.5, example_inputs=inputs, mode=mode, uniform=mode is None
    )
    assert "lm_head" not in masks
    prune_core.shrink(prune_core.unwrap(model), inputs, masks)
    assert model.num_parameters() < before
    assert model.lm_head.weight is model.transformer.wte.weight

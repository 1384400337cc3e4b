"""Experts of every family of mixtures that builds from a small config: removed, or refused."""

import copy
import pickle

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

import transformers
from transformers import CONFIG_MAPPING

import prune_core
from prune_core import ConfigError, SpeedupError

EXPERTS = 8

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "d_model": 32, "num_hidden_layers": 2, "num_layers": 2,
    "num_decoder_layers": 2, "encoder_layers": 2, "decoder_layers": 2, "num_attention_heads": 4,
    "num_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "d_ff": 48,
    "d_kv": 8, "ffn_hidden_size": 48, "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24, "num_experts": EXPERTS,
    "num_local_experts": EXPERTS, "n_routed_experts": EXPERTS,
    "moe_num_experts": EXPERTS, "num_experts_per_tok": 2, "max_position_embeddings": 64,
    "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "num_key_value_heads": 4, "head_dim": 8, "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 0,
}  # fmt: skip

FAMILIES = {
    "afmoe": {},
    "aria_text": {},
    "cohere2_moe": {},
    "deepseek_v2": {**LATENT, "topk_method": "group_limited_greedy"},
    "deepseek_v3": LATENT,
    "dots1": {"n_shared_experts": 1, "n_group": 2, "topk_group": 1},
    "ernie4_5_moe": {},
    "exaone_moe": {},
    "flex_olmo": {},
    "glm4_moe": {"n_group": 2, "topk_group": 1},
    "glm4_moe_lite": LATENT,
    "gpt_oss": {},
    "granitemoe": {},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        **{"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1},
    },
    "granitemoeshared": {},
    "hunyuan_v1_moe": {},
    "jamba": {
        **{"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 1},
        **{"expert_layer_offset": 0, "mamba_d_state": 8, "use_mamba_kernels": False},
        "mamba_dt_rank": 8,
    },
    "jetmoe": {},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 0},
    "llama4_text": {},
    "mellum": {},
    "minimax": {},
    "minimax_m2": {},
    "mixtral": {},
    "olmoe": {},
    "phimoe": {},
    "qwen2_moe": {},
    "qwen3_moe": {},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "solar_open": {"n_group": 2, "topk_group": 1},
    "switch_transformers": {"num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2},
}

REFUSED = {
    # Some of the choices of its router are no experts at all: they return their input.
    "longcat_flash": ({**LATENT, "expert_ffn_hidden_size": 24, "moe_topk": 2}, SpeedupError),
    # A table says for each word of the vocabulary which experts it goes to.
    "deepseek_v4": ({}, ConfigError),
}


def build(name, settings):
    kind = CONFIG_MAPPING[name]
    plain = kind()
    known = {
        key: size
        for key, size in SIZES.items()
        if (key in vars(plain) or key in plain.attribute_map)
        and isinstance(getattr(plain, key, None), int | float | None)
        and not {key, plain.attribute_map.get(key)} & settings.keys()
    }
    config = kind(**known, **settings)
    head = "Seq2SeqLM" if config.is_encoder_decoder else "CausalLM"
    mapping = getattr(transformers, f"AutoModelFor{head}")._model_mapping
    torch.manual_seed(0)
    model = mapping[type(config)](config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:  # attention and routing have to matter
            parameter.data.normal_(0, 0.3)
    for name, buffer in model.named_buffers():
        if "bias" in name:  # so that it decides, too
            buffer.uniform_(-0.1, 0.1)
    tokens = torch.randint(3, 60, (2, 10))
    more = {"decoder_input_ids": tokens[:, :5]} if config.is_encoder_decoder else {}
    return model, {"input_ids": tokens, **more}


def some(mixture, share):
    """Every group of experts loses its first ones."""
    groups = mixture.groups.count if mixture.groups else 1
    size = mixture.experts // groups
    return [group * size + at for group in range(groups) for at in range(int(size * share))]


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("name", FAMILIES)
def test_experts_go_and_the_config_follows(name, share, tmp_path):
    model, inputs = build(name, FAMILIES[name])
    dense = copy.deepcopy(model)
    found = prune_core.experts(model, inputs)
    assert len(found) >= 1
    gone = {mixture.name: some(mixture, share) for mixture in found}
    report = prune_core.remove_experts(model, inputs, gone)
    assert report.difference < 1e-5
    assert len(report.verified) >= 4
    for mixture in prune_core.experts(model, inputs):
        assert mixture.experts == (1 - share) * EXPERTS
    assert {new for _, new in report.config.values.values()} == {(1 - share) * EXPERTS}
    returned = model(**inputs).logits
    model.save_pretrained(tmp_path / "pretrained")
    pretrained = type(model).from_pretrained(tmp_path / "pretrained").eval()
    report.save(tmp_path / "small")
    loaded = prune_core.load_pruned(dense, tmp_path / "small")
    for other in (pretrained, loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(**inputs).logits, returned, rtol=1e-6, atol=1e-6)
    written = [
        model.generate(inputs["input_ids"], max_new_tokens=4, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*written)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_is_refused_and_the_model_is_as_it_was(name):
    settings, error = REFUSED[name]
    model, inputs = build(name, settings)
    before = model(**inputs).logits
    found = prune_core.experts(model, inputs)
    with pytest.raises(error):
        prune_core.remove_experts(model, inputs, {mixture.name: [0] for mixture in found})
    assert torch.equal(model(**inputs).logits, before)


@pytest.mark.parametrize("how", ["eager", "batched_mm", "grouped_mm"])
def test_whichever_way_experts_are_computed(how):
    model, inputs = build("mixtral", {})
    model.set_experts_implementation(how)
    report = prune_core.remove_experts(
        model, inputs, {"model.layers.0.mlp": [1, 4], "model.layers.1.mlp": [0, 7]}
    )
    assert report.config.values == {"num_local_experts": (8, 6)}
    assert model.model.layers[1].mlp.experts.gate_up_proj.shape[0] == 6


@pytest.mark.parametrize("how", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_channels_within_experts_are_units(name, how):
    model, inputs = build(name, {})
    model.set_experts_implementation(how)
    units = prune_core.units(model, inputs)
    groups = [group for group in units.groups if "mlp.experts" in group.name]
    assert [len(group) for group in groups] == [48, 48]
    chosen = [units.unit(label) for group in groups for label in group.labels[::2]]
    report = prune_core.shrink(model, inputs, units=chosen)
    assert report.config.values == {"intermediate_size": (48, 24)}
    assert 24 in model.model.layers[1].mlp.experts.down_proj.shape


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_a_config_says_how_many_experts_each_layer_has(family, tmp_path):
    model, inputs = build(family, {})
    dense = copy.deepcopy(model)
    report = prune_core.remove_experts(model, inputs, {"model.layers.0.mlp": [0, 1]})
    [(name, (_, left))] = report.config.values.items()
    assert name.startswith("per_layer_config.0.num_")
    assert left == EXPERTS - 2
    model.save_pretrained(tmp_path / "pretrained")
    report.save(tmp_path / "small")
    asked = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    tokens = model.generate(**inputs, **asked, use_cache=False)
    for loaded in (
        prune_core.from_pretrained(tmp_path / "pretrained").eval(),
        prune_core.load_pruned(dense, tmp_path / "small"),
    ):
        assert all(map(torch.equal, loaded.parameters(), model.parameters()))
        # Experts that lie elsewhere in memory may be multiplied by a kernel that rounds otherwise.
        assert torch.allclose(loaded(**inputs).logits, model(**inputs).logits, atol=1e-5)
        assert torch.equal(loaded.generate(**inputs, **asked), tokens)


def test_groups_of_experts_stay_equally_large():
    model, inputs = build("deepseek_v3", LATENT)
    found = prune_core.experts(model, inputs)
    assert (found[0].groups.count, found[0].groups.chosen) == (2, 1)
    with pytest.raises(ConfigError, match="same number of experts out of each group"):
        prune_core.remove_experts(model, inputs, {found[0].name: [0, 1]})
    with pytest.raises(ConfigError, match="4 experts have to stay, and 2 would be left"):
        prune_core.remove_experts(model, inputs, {found[0].name: [0, 1, 2, 4, 5, 6]})


def test_half_precision_is_proved_in_single():
    model, inputs = build("olmoe", {})
    model.to(torch.bfloat16)
    gone = {"model.layers.0.mlp": [3, 5], "model.layers.1.mlp": [0, 1]}
    report = prune_core.remove_experts(model, inputs, gone)
    assert report.difference < 1e-5
    assert model.model.layers[0].mlp.experts.down_proj.dtype == torch.bfloat16


def test_a_model_of_the_library_within_one_of_your_own(tmp_path):
    class Around(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, tokens):
            return self.inner(input_ids=tokens).logits

    inner, inputs = build("mixtral", {})
    model, tokens = Around(inner), inputs["input_ids"]
    gone = {mixture.name: [2, 3] for mixture in prune_core.experts(model, tokens)}
    report = prune_core.remove_experts(model, tokens, gone)
    assert report.config.values == {"inner.num_local_experts": (8, 6)}
    model.inner.save_pretrained(tmp_path)
    again = Around(type(inner).from_pretrained(tmp_path)).eval()
    torch.testing.assert_close(again(tokens), model(tokens))


def test_a_loss_that_balances_the_experts_is_named():
    model, inputs = build("mixtral", {})
    inputs = {**inputs, "labels": inputs["input_ids"], "output_router_logits": True}
    found = prune_core.experts(model, inputs)
    assert [mixture.name for mixture in found] == ["model.layers.0.mlp", "model.layers.1.mlp"]
    gone = {mixture.name: [0] for mixture in found}
    with pytest.raises(SpeedupError, match="output_router_logits=False"):
        prune_core.remove_experts(model, inputs, gone)
    assert model.model.layers[0].mlp.gate.weight.shape[0] == EXPERTS


def test_to_how_many_experts_a_token_goes():
    for name, top_k in (("switch_transformers", 1), ("phimoe", 2), ("mixtral", 2)):
        model, inputs = build(name, FAMILIES[name])
        assert {mixture.top_k for mixture in prune_core.experts(model, inputs)} == {top_k}

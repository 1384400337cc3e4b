"""Layers of transformers are taken out: caches, indices and configs follow."""

import copy

import pytest
import torch

import prune_core
from prune_core import PruneError, PruneWarning

transformers = pytest.importorskip("transformers", reason="needs transformers")

IDS = torch.randint(4, 60, (2, 10), generator=torch.Generator().manual_seed(0))
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
SPECIAL = {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
PAIR = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}


def llama():
    config = transformers.LlamaConfig(**SMALL)
    return transformers.LlamaForCausalLM(config), {"input_ids": IDS}, "model.layers.{}"


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=4, n_head=4, n_positions=64, bos_token_id=1,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), {"input_ids": IDS}, "transformer.h.{}"


def t5():
    config = transformers.T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4, num_decoder_layers=4,
        decoder_start_token_id=0,
    )  # fmt: skip
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS[:, :6].contiguous()}
    return transformers.T5ForConditionalGeneration(config), inputs, "decoder.block.{}"


def bart():
    config = transformers.BartConfig(**PAIR, max_position_embeddings=64, forced_eos_token_id=None)
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS[:, :6].contiguous()}
    return transformers.BartForConditionalGeneration(config), inputs, "model.decoder.layers.{}"


def whisper():
    config = transformers.WhisperConfig(
        **PAIR, **SPECIAL, num_mel_bins=8, max_source_positions=16, max_target_positions=48
    )
    inputs = {
        "input_features": torch.randn(2, 8, 32),
        "decoder_input_ids": IDS[:, :6].contiguous(),
    }
    return transformers.WhisperForConditionalGeneration(config), inputs, "model.decoder.layers.{}"


GENERATORS = [llama, gpt2, t5, bart, whisper]


def made(build):
    torch.manual_seed(0)
    model, inputs, names = build()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)  # fresh models say the same whatever they are told
    return model.eval(), inputs, names


def generated(model, inputs, **options):
    given = {name: value for name, value in inputs.items() if not name.startswith("decoder")}
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, **options}
    return model.generate(**given, **options)


@pytest.mark.parametrize("build", GENERATORS)
@pytest.mark.parametrize("part", [(1,), (1, 2)])
def test_generate_with_a_cache_is_generate_without(build, part, tmp_path):
    model, inputs, names = made(build)
    gone = [names.format(each) for each in part]
    report = prune_core.remove_blocks(model, inputs, gone)
    assert report.cache is not None
    assert not report.missing
    cached, plain = (generated(model, inputs, use_cache=each) for each in (True, False))
    assert torch.equal(cached, plain)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(generated(loaded, inputs, use_cache=True), plain)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("build", [llama, gpt2, bart])
def test_an_attention_that_is_gone_leaves_no_hole_in_the_cache(build, tmp_path):
    model, inputs, names = made(build)
    dense = copy.deepcopy(model)
    found = prune_core.blocks(model, inputs)
    start = names.format(0)
    first = next(b for b in found.of_kind("attention") if b.name.startswith(start))
    with pytest.warns(PruneWarning, match="cannot describe it"):
        report = prune_core.remove_blocks(model, inputs, first)
    cached, plain = (generated(model, inputs, use_cache=each) for each in (True, False))
    assert torch.equal(cached, plain)
    with pytest.raises(PruneError, match="save_pruned"):
        model.save_pretrained(tmp_path)
    report.save(tmp_path / "small.safetensors")
    loaded = prune_core.load_pruned(dense, tmp_path / "small.safetensors")
    assert torch.equal(generated(loaded, inputs, use_cache=True), plain)


def test_the_lists_of_a_config_follow(tmp_path):
    types = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
    config = transformers.Gemma3TextConfig(
        **SMALL, head_dim=8, num_key_value_heads=2, layer_types=types, sliding_window=4
    )
    model = transformers.Gemma3ForCausalLM(config).eval()
    inputs = {"input_ids": IDS}
    report = prune_core.remove_blocks(model, inputs, ["model.layers.0", "model.layers.3"])
    assert model.config.layer_types == types[1:3]
    assert model.config.num_hidden_layers == 2
    assert report.config["num_hidden_layers"] == (4, 2)
    assert config.num_hidden_layers == 4  # which may belong to another model, too
    model.save_pretrained(tmp_path)
    loaded = transformers.Gemma3ForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(generated(loaded, inputs), generated(model, inputs, use_cache=False))


def test_positions_in_a_config_move_up(tmp_path):
    config = transformers.Qwen3MoeConfig(
        **SMALL, head_dim=8, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=16, mlp_only_layers=[0, 3], decoder_sparse_step=1,
    )  # fmt: skip
    model = transformers.Qwen3MoeForCausalLM(config).eval()
    report = prune_core.remove_blocks(model, {"input_ids": IDS}, "model.layers.1")
    assert report.config["mlp_only_layers"] == ([0, 3], [0, 2])
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_both_sides_of_a_pair_have_a_count_of_their_own(side):
    model, inputs, _ = made(whisper)
    report = prune_core.remove_blocks(model, inputs, f"model.{side}.layers.1")
    assert report.config[f"{side}_layers"] == (3, 2)
    assert len(model.model.encoder.layers) + len(model.model.decoder.layers) == 5


def test_the_block_that_makes_a_bias_for_all_others_stays():
    model, inputs, _ = made(t5)
    found = prune_core.blocks(model, inputs)
    assert "reads what else it computes" in found["encoder.block.0"].reason
    with pytest.raises(PruneError, match="cannot be taken out"):
        prune_core.remove_blocks(model, inputs, "decoder.block.0")


@pytest.mark.parametrize(("stage", "kept"), [(0, [1, 2]), (1, [2, 1])])
def test_a_list_of_depths_follows(stage, kept, tmp_path):
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4
    )
    model = transformers.SwinModel(config).eval()
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32)}
    prune_core.remove_blocks(model, inputs, f"encoder.layers.{stage}.blocks.1")
    assert model.config.depths == kept
    model.save_pretrained(tmp_path)
    loaded = transformers.SwinModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).pooler_output, model(**inputs).pooler_output)

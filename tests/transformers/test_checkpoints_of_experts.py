"""Checkpoints whose files have other tensors than the model, such as one for each expert."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GptOssConfig,
    HrmTextConfig,
    MixtralConfig,
    Qwen3MoeConfig,
)

import prune_core
from prune_core import ConfigError, SpeedupError
from prune_speedup.torch.checkpoint import conversion
from prune_speedup.torch.checkpoint.shards import Shards

X = {"input_ids": torch.arange(12)[None]}
SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "initializer_range": 0.3,
}  # fmt: skip
FAMILIES = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=8, num_experts_per_tok=2),
    "qwen3 moe": Qwen3MoeConfig(
        **SIZES, head_dim=8, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24
    ),
    "deepseek v3": DeepseekV3Config(
        **SIZES, n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1,
        moe_intermediate_size=24, first_k_dense_replace=0, q_lora_rank=8, kv_lora_rank=8,
        qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8, n_shared_experts=1,
    ),
    "gpt-oss": GptOssConfig(
        **SIZES, head_dim=8, num_local_experts=8, num_experts_per_tok=2, sliding_window=8
    ),
}  # fmt: skip


def model_of(family):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(FAMILIES[family], dtype=torch.float32).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_bits_and_names_are_those_of_removing_experts_in_memory(big, tmp_path, family, same):
    model = model_of(family)
    folder = big(model)
    mixtures = [each.name for each in prune_core.experts(model, X)]
    gone = {mixtures[0]: [0, 5], mixtures[1]: [3, 6]}
    report = prune_core.shrink_checkpoint(folder, tmp_path / "small", X, experts=gone)
    prune_core.remove_experts(model, X, gone)
    model.save_pretrained(tmp_path / "in memory", max_shard_size="1GB")
    same(tmp_path / "small", tmp_path / "in memory")
    assert report.verified[0] == "the example"
    assert report.experts[mixtures[0]] == (8, [1, 2, 3, 4, 6, 7])
    assert sorted(file.name for file in (tmp_path / "small").iterdir()) == sorted(
        file.name for file in folder.iterdir()
    )
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    with torch.no_grad():
        assert torch.equal(read(**X).logits, model(**X).logits)


def test_channels_inside_of_experts_go_as_they_do_in_memory(big, tmp_path, same):
    model = model_of("mixtral")
    folder = big(model)
    name = "model.layers.{}.mlp.experts.down_proj"
    units = [{name.format(layer): {2: [layer, 7, 30, 31]}} for layer in range(2)]
    prune_core.shrink_checkpoint(folder, tmp_path / "small", X, units=units)
    prune_core.shrink(model, X, units=units)
    model.save_pretrained(tmp_path / "in memory", max_shard_size="1GB")
    same(tmp_path / "small", tmp_path / "in memory")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert read.config.intermediate_size == 44


def test_one_tensor_of_the_files_may_be_several_of_the_model(big, tmp_path, same):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(HrmTextConfig(**SIZES)).eval()
    folder = big(model, "30KB")
    assert any("gate_up_proj" in name for name, _ in Shards(folder))
    names = [name for name, _ in model.named_parameters() if name.endswith("mlp.up_proj.weight")]
    units = [{name: {0: [1, 7, 30]}} for name in names]
    prune_core.shrink_checkpoint(folder, tmp_path / "small", X, units=units)
    prune_core.shrink(model, X, units=units)
    model.save_pretrained(tmp_path / "in memory")
    same(tmp_path / "small", tmp_path / "in memory")


def test_experts_are_ranked_on_data(big, tmp_path, same):
    model = model_of("mixtral")
    folder = big(model)
    data = [{"input_ids": torch.randint(50, (2, 16))} for _ in range(3)]
    prune_core.shrink_checkpoint(
        folder, tmp_path / "small", X, sparsity=0.5, algorithm="reap", data=data
    )
    _, report = prune_core.prune(model, "reap", sparsity=0.5, data=data)
    assert report.config.values == {"num_local_experts": (8, 4)}
    model.save_pretrained(tmp_path / "in memory", max_shard_size="1GB")
    same(tmp_path / "small", tmp_path / "in memory")


@pytest.mark.parametrize("after", range(1, 12, 3))
def test_who_was_interrupted_goes_on(big, tmp_path, monkeypatch, after, same):
    folder, gone = big(model_of("mixtral")), {"model.layers.0.mlp": [1], "model.layers.1.mlp": [7]}
    write, written = conversion.write_shard, []

    def count(path, *others):
        written.append(path)
        if len(written) == after + 1:
            raise KeyboardInterrupt
        write(path, *others)

    for module in ("conversion", "cutting"):
        monkeypatch.setattr(f"prune_speedup.torch.checkpoint.{module}.write_shard", count)
    with pytest.raises(KeyboardInterrupt):
        prune_core.shrink_checkpoint(folder, tmp_path / "small", X, experts=gone)
    first, written[:] = written[:after], [None] * 100
    prune_core.shrink_checkpoint(folder, tmp_path / "small", X, experts=gone)
    assert written[100:]
    assert not {*first} & {*written[100:]}
    prune_core.shrink_checkpoint(folder, tmp_path / "at once", X, experts=gone)
    same(tmp_path / "small", tmp_path / "at once")
    assert not list((tmp_path / "small").glob(".*"))


def test_a_wrong_piece_is_found_by_the_proof_and_nothing_is_left(big, tmp_path, monkeypatch):
    def wrong(tensor, kept):
        return tensor[: len(kept[0])] if 0 in kept else tensor

    monkeypatch.setattr("prune_speedup.torch.checkpoint.cutting.cut", wrong)
    gone = {"model.layers.0.mlp": [1], "model.layers.1.mlp": [6]}
    with pytest.raises(SpeedupError, match="differs"):
        prune_core.shrink_checkpoint(big(model_of("mixtral")), tmp_path / "small", X, experts=gone)
    assert not list((tmp_path / "small").iterdir())


def test_mistakes_leave_nothing_behind(big, tmp_path):
    folder, out = big(model_of("mixtral"), "1GB"), tmp_path / "small"
    with pytest.raises(ConfigError, match="once"):
        prune_core.shrink_checkpoint(folder, out, X, sparsity=0.5, experts={})
    with pytest.raises(ConfigError, match="data is what experts are ranked on"):
        prune_core.shrink_checkpoint(folder, out, X, sparsity=0.5, data=[X])
    with pytest.raises(ConfigError, match="no expert 8"):
        prune_core.shrink_checkpoint(folder, out, X, experts={"model.layers.0.mlp": [8]})
    with pytest.raises(ConfigError, match=r"leaves 1 of the 8"):
        prune_core.shrink_checkpoint(folder, out, X, sparsity=0.9, algorithm="reap")
    content = load_file(folder / "model.safetensors")
    lost = "model.layers.0.block_sparse_moe.experts.3.w1.weight"
    save_file({n: t for n, t in content.items() if n != lost}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"others in the files that belong .* Is one missing\?"):
        prune_core.shrink_checkpoint(folder, out, X, experts={"model.layers.0.mlp": [1]})
    assert not list(out.iterdir())

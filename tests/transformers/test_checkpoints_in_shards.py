"""A checkpoint made smaller file by file is what shrinking it in memory makes of it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import prune_core
from prune_core import ConfigError, SpeedupError
from prune_speedup.torch.checkpoint import cutting
from prune_speedup.torch.checkpoint.shards import Shards
from prune_speedup.torch.proof import higher_precision

X = {"input_ids": torch.arange(12)[None]}


def llama(**settings):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, initializer_range=0.3, **settings,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tensors(folder):
    return {name: tensor.clone() for name, tensor in Shards(folder)}


@pytest.mark.parametrize(
    ("settings", "dtype", "shard"),
    [
        ({}, torch.float32, "30KB"),
        ({"tie_word_embeddings": True}, torch.float32, "30KB"),
        ({}, torch.bfloat16, "1GB"),
    ],
    ids=["shards", "tied", "one file of bfloat16"],
)
def test_bits_are_those_of_shrinking_in_memory(big, tmp_path, settings, dtype, shard, same):
    folder = big(llama(**settings).to(dtype), shard)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    units = [
        {f"model.layers.{layer}.mlp.up_proj.weight": {0: [layer, 7, 30, 47]}}
        | {f"model.layers.{layer}.self_attn.v_proj.weight": {0: [8 * layer, 24]}}
        for layer in range(3)
    ]
    report = prune_core.shrink_checkpoint(folder, tmp_path / "small", X, units=units)
    before = sorted(file.name for file in folder.glob("*.safetensors"))
    assert sorted(file.name for file in (tmp_path / "small").glob("*.safetensors")) == before
    prune_core.shrink(model, X, units=units)
    model.save_pretrained(tmp_path / "in memory", max_shard_size="1GB")
    same(tmp_path / "small", tmp_path / "in memory")
    assert report.verified[0] == "the example"
    read = LlamaForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert read.dtype == dtype
    assert read.config.intermediate_size == 44
    with torch.no_grad():
        assert torch.equal(read(**X).logits, model(**X).logits)


def test_a_sparsity_takes_the_least_of_each_layer(big, tmp_path):
    model = llama()
    gates = [layer.mlp for layer in model.model.layers]
    with torch.no_grad():
        for mlp in gates:
            for weight in (mlp.gate_proj.weight, mlp.up_proj.weight):
                weight[1::2] *= 0.01
    report = prune_core.shrink_checkpoint(big(model), tmp_path / "small", X, sparsity=0.5)
    small = tensors(tmp_path / "small")
    for at, mlp in enumerate(gates):
        name = f"model.layers.{at}.mlp.up_proj.weight"
        assert torch.equal(small[name], mlp.up_proj.weight[::2])
    assert report.parameters[1] < 0.7 * report.parameters[0]
    assert small["model.embed_tokens.weight"].shape == (50, 32)


def test_who_was_interrupted_goes_on(big, tmp_path, monkeypatch, same):
    folder, written = big(llama()), []
    write = cutting.write_shard

    def until_the_third(path, *others):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, *others)

    monkeypatch.setattr(cutting, "write_shard", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.5)
    first, written[:] = list(written), []
    monkeypatch.setattr(
        cutting, "write_shard", lambda p, *o: (written.append(p.name), write(p, *o))
    )
    prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.5)
    assert written
    assert not {*first} & {*written}
    prune_core.shrink_checkpoint(folder, tmp_path / "at once", X, sparsity=0.5)
    same(tmp_path / "small", tmp_path / "at once")
    assert not list((tmp_path / "small").glob(".*"))


def test_shards_of_another_plan_are_written_again(big, tmp_path, monkeypatch, same):
    folder, write = big(llama()), cutting.write_shard
    calls = []

    def once(path, *others):
        if calls:
            raise KeyboardInterrupt
        calls.append(path)
        write(path, *others)

    monkeypatch.setattr(cutting, "write_shard", once)
    with pytest.raises(KeyboardInterrupt):
        prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.25)
    monkeypatch.setattr(cutting, "write_shard", write)
    prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.5)
    prune_core.shrink_checkpoint(folder, tmp_path / "at once", X, sparsity=0.5)
    same(tmp_path / "small", tmp_path / "at once")


def test_a_wrong_shard_is_found_by_the_proof(big, tmp_path, monkeypatch):
    folder, cut = big(llama()), cutting.cut

    def wrong(tensor, kept):
        return cut(tensor, kept).flip(0) if 0 in kept else cut(tensor, kept)

    monkeypatch.setattr(cutting, "cut", wrong)
    with pytest.raises(SpeedupError, match="differs|other numbers"):
        prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.5)
    assert not list((tmp_path / "small").iterdir())


def test_what_is_no_checkpoint_is_refused(big, tmp_path):
    out = tmp_path / "small"
    with pytest.raises(ConfigError, match="neither"):
        prune_core.shrink_checkpoint(tmp_path, out, X, sparsity=0.5)
    folder = big(llama())
    with pytest.raises(ConfigError, match="once"):
        prune_core.shrink_checkpoint(folder, out, X)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        prune_core.shrink_checkpoint(folder, out, X, sparsity=50)
    with pytest.raises(ConfigError, match="the folder that is read"):
        prune_core.shrink_checkpoint(folder, folder, X, sparsity=0.5)
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something in it"):
        prune_core.shrink_checkpoint(folder, out, X, sparsity=0.5)
    assert [file.name for file in out.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("change", ["another name", "a name less", "another shape"])
def test_files_that_are_not_of_this_model_are_refused(big, tmp_path, change):
    folder = big(llama(), "1GB")
    content = load_file(folder / "model.safetensors")
    if change == "another name":
        content["experts.0.weight"] = torch.zeros(2, 2)
    elif change == "a name less":
        del content["model.norm.weight"]
    else:
        content["model.norm.weight"] = torch.ones(31)
    save_file(content, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="no tensor of that name|lack|has the shape"):
        prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.5)


def test_a_damaged_file_is_refused(big, tmp_path):
    folder = big(llama())
    file = sorted(folder.glob("*.safetensors"))[0]
    file.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="damaged"):
        prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.5)
    file.unlink()
    with pytest.raises(ConfigError, match="lacks"):
        prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.5)


def test_no_second_model_is_made_to_compare_in_wider_numbers(big, tmp_path, monkeypatch):
    widened = []
    monkeypatch.setattr(higher_precision, "put", lambda tensor, *others: widened.append(tensor))
    folder = big(llama().bfloat16())
    prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.5)
    assert not widened


def test_everything_else_in_the_folder_is_copied(big, tmp_path):
    folder = big(llama())
    (folder / "tokenizer.json").write_text("{}")
    prune_core.shrink_checkpoint(folder, tmp_path / "small", X, sparsity=0.5)
    names = {file.name for file in (tmp_path / "small").iterdir()}
    assert names == {file.name for file in folder.iterdir()}
    index = json.loads((tmp_path / "small" / "model.safetensors.index.json").read_text())
    size = sum(t.numel() * t.itemsize for t in tensors(tmp_path / "small").values())
    assert index["metadata"]["total_size"] == size


def test_the_page_runs_from_top_to_bottom(tmp_path):
    page = Path(__file__).resolve().parents[2] / "docs" / "guides" / "bigger-than-memory.md"
    code = "\n".join(re.findall(r"^```py\n(.*?)^```", page.read_text("utf-8"), re.M | re.S))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"^# (.*)$", code, re.M)

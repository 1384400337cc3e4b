"""Pruned language models as GGUF files: read by transformers, and by the package gguf."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("gguf", reason="needs gguf")

import gguf
import transformers
from transformers import AutoModelForCausalLM

import prune_core
from prune_core import ConfigError

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
X = {"input_ids": torch.arange(12).reshape(2, 6)}


def built(name, **more):
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**SIZES, **more)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def cut(model, hidden):
    """Leave of each layer so many hidden channels."""
    found = prune_core.units(model, X)
    gone = []
    for layer, left in enumerate(hidden):
        [group] = [g for g in found.groups if f"layers.{layer}.mlp" in g.name]
        gone += [found.unit(label) for label in group.labels[left:]]
    prune_core.shrink(model, X, units=gone)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("LlamaForCausalLM", {}),
        ("LlamaForCausalLM", {"tie_word_embeddings": True, "rope_theta": 500.0}),
        ("MistralForCausalLM", {}),
        ("Qwen2ForCausalLM", {}),
        ("Qwen3ForCausalLM", {"head_dim": 128}),
    ],
)
def test_transformers_reads_it(name, more, tmp_path):
    model = built(name, **more)
    cut(model, [20, 20])
    prune_core.export(model, tmp_path / "model.gguf")
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**X).logits, model(**X).logits)


def test_a_list_has_a_number_for_each_layer(tmp_path):
    model = built("LlamaForCausalLM")
    cut(model, [20, 33])
    path = prune_core.export(model, tmp_path / "model.gguf", dtype=torch.float16)
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "deci"
    assert fields["deci.feed_forward_length"] == [20, 33]
    assert fields["deci.attention.head_count"] == [4, 4]
    assert fields["deci.attention.head_count_kv"] == [2, 2]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    down = model.model.layers[1].mlp.down_proj.weight
    found = torch.from_numpy(tensors["blk.1.ffn_down.weight"].data.copy())
    assert found.dtype == torch.float16
    assert torch.equal(found, down.half())
    assert tensors["output_norm.weight"].data.dtype == "float32"
    # Rotary embeddings turn neighbours there, and the halves of a head here.
    query = model.model.layers[0].self_attn.q_proj.weight.half()
    turned = torch.from_numpy(tensors["blk.0.attn_q.weight"].data.copy())
    assert torch.equal(turned[:4], query[[0, 4, 1, 5]])


@pytest.mark.parametrize(
    ("name", "more", "hidden", "match"),
    [
        ("Qwen2ForCausalLM", {}, [20, 33], "layers of this Qwen2ForCausalLM differ"),
        ("GemmaForCausalLM", {}, [20, 20], "GemmaForCausalLM cannot be written as GGUF"),
        (
            "LlamaForCausalLM",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            [20, 20],
            "positions are of the kind 'linear'",
        ),
    ],
)
def test_what_has_no_form_is_refused(name, more, hidden, match, tmp_path):
    model = built(name, **more)
    cut(model, hidden)
    with pytest.raises(ConfigError, match=match):
        prune_core.export(model, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())

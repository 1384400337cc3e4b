"""A smaller model of transformers is one that its own config describes, wherever a config can."""

import json
import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

import transformers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

import prune_core

TOKENS = torch.arange(12).reshape(2, 6)
# Weights so large that attention is more than a mean: a wrong number of heads must show.
LARGE = {"initializer_range": 0.3}


def llama():
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3, head_dim=8,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=32, **LARGE,
    )  # fmt: skip
    return LlamaForCausalLM(config), {"input_ids": TOKENS}


def bert():
    config = BertConfig(
        vocab_size=50, hidden_size=48, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, **LARGE,
    )  # fmt: skip
    return BertForSequenceClassification(config), {"input_ids": TOKENS}


def vit():
    config = ViTConfig(
        hidden_size=48, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        image_size=16, patch_size=8, **LARGE,
    )  # fmt: skip
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return ViTForImageClassification(config), {"pixel_values": pixels}


def gpt2():
    config = GPT2Config(vocab_size=50, n_embd=48, n_layer=2, n_head=4, n_positions=32, **LARGE)
    return GPT2LMHeadModel(config), {"input_ids": TOKENS}


def t5():
    config = T5Config(
        vocab_size=50, d_model=32, d_kv=8, d_ff=40, num_layers=2, num_heads=4,
        initializer_factor=3.0, decoder_start_token_id=0,
    )  # fmt: skip
    return T5ForConditionalGeneration(config), {
        "input_ids": TOKENS,
        "decoder_input_ids": TOKENS[:, :4],
    }


def built(build):
    torch.manual_seed(0)
    model, inputs = build()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval(), inputs


def without_half(build):
    """A model without half of the units of each group, and the report."""
    model, inputs = built(build)
    found = prune_core.units(model, inputs)
    chosen = [
        found.unit(label) for group in found.groups for label in group.labels[1 : len(group) : 2]
    ]
    return model, inputs, prune_core.shrink(model, inputs, units=chosen)


def pruned_alike(build):
    """A model pruned by an algorithm, uniformly, and the report."""
    model, inputs = built(build)
    _, masks = prune_core.prune(
        model, "l1", sparsity=0.5, example_inputs=inputs, uniform=True, exclude="lm_head"
    )
    prune_core.unwrap(model)
    return model, inputs, prune_core.shrink(model, inputs, masks)


def without_head_size(library_name, **more):
    """A model whose config does not say how wide a head is: the model makes it up."""

    def build():
        config = getattr(transformers, f"{library_name}Config")(
            vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=32,
            **LARGE, **more,
        )  # fmt: skip
        assert getattr(config, "head_dim", None) is None
        return getattr(transformers, f"{library_name}ForCausalLM")(config), {"input_ids": TOKENS}

    return build


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
HEAD_SIZE_MADE_UP = {
    "Qwen2": {},
    "Phi": {},
    "Granite": {},
    "Mixtral": {"num_local_experts": 4},
    "Phi3": {"pad_token_id": 0},
    "Qwen2Moe": {"shared_expert_intermediate_size": 40, **EXPERTS},
}

SMALL = {build.__name__: (without_half, build) for build in (llama, bert, vit, gpt2, t5)}
SMALL["grouped queries"] = pruned_alike, llama
SMALL |= {
    name: (pruned_alike, without_head_size(name, **more))
    for name, more in HEAD_SIZE_MADE_UP.items()
}

IN_A_FRESH_PROCESS = """
import sys, torch, transformers
for folder in sys.argv[1:]:
    inputs = torch.load(f"{folder}/inputs.pt", weights_only=True)
    [name] = transformers.AutoConfig.from_pretrained(folder).architectures
    model = getattr(transformers, name).from_pretrained(folder).eval()
    torch.save(model(**inputs).logits, f"{folder}/outputs.pt")
"""


@pytest.fixture(scope="module")
def small():
    return {name: make(build) for name, (make, build) in SMALL.items()}


@pytest.fixture(scope="module")
def loaded(small, tmp_path_factory):
    """What the small models return once another process has loaded them."""
    folders = {name: tmp_path_factory.mktemp(name.replace(" ", "_")) for name in small}
    for name, (model, inputs, _) in small.items():
        model.save_pretrained(folders[name])
        torch.save(inputs, folders[name] / "inputs.pt")
    done = subprocess.run(
        (sys.executable, "-c", IN_A_FRESH_PROCESS, *folders.values()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: torch.load(folder / "outputs.pt", weights_only=True)
        for name, folder in folders.items()
    }


VALUES = {
    "llama": {
        "num_attention_heads": (8, 4),
        "num_key_value_heads": (4, 2),
        "intermediate_size": (48, 24),
        "hidden_size": (32, 16),
    },
    "bert": {
        "num_attention_heads": (4, 2),
        "intermediate_size": (40, 20),
        "hidden_size": (48, 24),
    },
    "vit": {
        "num_attention_heads": (4, 2),
        "intermediate_size": (40, 20),
        "hidden_size": (48, 24),
    },
    "gpt2": {"n_head": (4, 2), "n_embd": (48, 24)},
    "t5": {"num_heads": (4, 2), "d_ff": (40, 20)},
    "grouped queries": {
        "num_attention_heads": (8, 4),
        "num_key_value_heads": (4, 2),
        "intermediate_size": (48, 24),
    },
}
HEADS = {"head_dim": (None, 4), "num_attention_heads": (8, 4), "num_key_value_heads": (4, 2)}
VALUES |= {
    name: HEADS | {"intermediate_size": (48, 24)} for name in ("Qwen2", "Phi", "Phi3", "Granite")
}
VALUES["Mixtral"] = HEADS
VALUES["Qwen2Moe"] = HEADS | {"shared_expert_intermediate_size": (40, 20)}


@pytest.mark.parametrize("name", SMALL)
def test_the_sizes_in_the_config_follow(name, small):
    model, _, report = small[name]
    assert report.config.values == VALUES[name]
    assert not report.config.missing
    for size, (old, new) in VALUES[name].items():
        assert getattr(model.config, size) == new
        said = f"{size} {new} (it was left open)" if old is None else f"{size} {old} → {new}"
        assert said in " ".join(str(report).split())
    assert json.loads(report.to_json())["config"]["values"].keys() == VALUES[name].keys()


@pytest.mark.parametrize("name", SMALL)
def test_it_is_loaded_by_its_library_alone(name, small, loaded):
    model, inputs, _ = small[name]
    with torch.no_grad():
        expected = model(**inputs).logits
    scale = expected.abs().max().item()
    assert scale > 0.1
    torch.testing.assert_close(loaded[name], expected, rtol=0, atol=5e-6 * scale)


def test_layers_of_different_widths_are_said_layer_by_layer(tmp_path):
    model, inputs = built(llama)
    first, second = (f"model.layers.{layer}.mlp.gate_proj" for layer in (0, 1))
    rules = [
        {"op_names": [f"model.layers.{layer}.mlp.{name}" for name in ("gate_proj", "up_proj")],
         "sparsity": sparsity}
        for layer, sparsity in ((0, 0.5), (1, 0.25))
    ]  # fmt: skip
    pruner = prune_core.get_pruner("l1")(model, rules, mode="dependency_aware", dummy_input=inputs)
    _, masks = pruner.compress(example_inputs=inputs)
    pruner.unwrap()
    report = prune_core.shrink(model, inputs, masks)
    assert model.get_submodule(first).out_features == 24
    assert model.get_submodule(second).out_features == 36
    assert "intermediate_size by layer 24, 36" in " ".join(str(report).split())
    model.save_pretrained(tmp_path / "folder")
    prune_core.save_pruned(model, tmp_path / "small.safetensors")
    for again in (
        prune_core.load_pruned(built(llama)[0], tmp_path / "small.safetensors"),
        prune_core.from_pretrained(tmp_path / "folder"),
    ):
        with torch.no_grad():
            assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_what_the_config_cannot_say(tmp_path):
    """BERT's heads are as wide as its hidden size allows: fewer heads alone are wider ones."""
    model, inputs = built(bert)
    found = prune_core.units(model, inputs)
    heads = [group for group in found.groups if "query" in group.name]
    chosen = [found.unit(label) for group in heads for label in group.labels[:2]]
    before = model.config.to_dict()
    with pytest.warns(prune_core.PruneWarning, match="its config cannot describe it"):
        report = prune_core.shrink(model, inputs, units=chosen)
    assert "would be (48, 48), and is" in report.config.missing
    assert model.config.to_dict() == before


def test_sizes_that_the_library_refuses():
    model, inputs = built(llama)
    found = prune_core.units(model, inputs)
    heads = [group for group in found.groups if "q_proj" in group.name and len(group) == 4]
    chosen = [found.unit(group.labels[0]) for group in heads]
    with pytest.warns(prune_core.PruneWarning, match="its config cannot describe it"):
        report = prune_core.shrink(model, inputs, units=chosen)
    assert "The hidden size (32) is not a multiple" in report.config.missing
    assert model.config.num_attention_heads == 8


def test_the_config_is_followed_only_after_a_proof():
    model, inputs = built(llama)
    found = prune_core.units(model, inputs)
    before = model.config.to_dict()
    with pytest.raises(prune_core.SpeedupError):
        prune_core.shrink(
            model, inputs, units=[found.unit(found.groups[1].labels[0])], tolerance=-1.0
        )
    assert model.config.to_dict() == before


def test_a_config_that_another_model_shares_is_left_alone():
    torch.manual_seed(0)
    other, inputs = llama()
    model = LlamaForCausalLM(other.config).eval()
    before = other.config.to_dict()
    _, masks = prune_core.prune(
        model, "l1", sparsity=0.5, example_inputs=inputs, uniform=True, exclude="lm_head"
    )
    prune_core.unwrap(model)
    prune_core.shrink(model, inputs, masks)
    assert model.config.intermediate_size == 24
    assert other.config.to_dict() == before
    configs = {id(m.config) for m in model.modules() if hasattr(m, "config")}
    assert configs == {id(model.config)}


def test_a_model_of_the_library_within_another_is_saved_by_itself(tmp_path):
    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = llama()[0]
            self.top = torch.nn.Linear(50, 2)

        def forward(self, tokens):
            return self.top(self.backbone(input_ids=tokens, use_cache=False).logits[:, -1])

    torch.manual_seed(0)
    model = Classifier().eval()
    _, masks = prune_core.prune(
        model, "l1", sparsity=0.5, example_inputs=TOKENS, uniform=True,
        exclude=["top", "backbone.lm_head"],
    )  # fmt: skip
    prune_core.unwrap(model)
    report = prune_core.shrink(model, TOKENS, masks)
    assert report.config.values["backbone.intermediate_size"] == (48, 24)
    model.backbone.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(TOKENS).logits, model.backbone(TOKENS).logits)


@pytest.mark.parametrize("way", ["eager", "sdpa"])
def test_half_precision_is_described_whatever_way_attention_is_computed(way):
    model, x = llama()
    model = type(model)._from_config(model.config, attn_implementation=way).bfloat16().eval()
    units = [{f"model.layers.{n}.self_attn.v_proj.weight": {0: [*range(16)]}} for n in range(3)]
    report = prune_core.shrink(model, x, units=units)
    assert report.config.values["num_attention_heads"] == (8, 4)
    assert not report.config.missing
    assert model.config._attn_implementation == way

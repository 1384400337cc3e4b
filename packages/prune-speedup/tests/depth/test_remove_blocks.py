"""Blocks and branches are taken out, and what is left is the model without them."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from residual_models import DiT, Indexed, Layer, ResNet, Transformer
from torch import nn

import prune_core
from prune_core import ConfigError, PruneError, SpeedupError
from prune_speedup.torch import left_out
from prune_speedup.torch.depth.steps import Step

TOKENS = torch.arange(18).reshape(2, 9) % 20
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LATENTS = torch.randn(2, 4, 8, 8), torch.rand(2)
CASES = [
    (Transformer, TOKENS, ["layers.0", "layers.2.attention", "layers.3.mlp"]),
    (Transformer, TOKENS, ["layers.1", "layers.3"]),
    (ResNet, IMAGES, ["layer1.0", "layer2.1"]),
    (ResNet, IMAGES, ["layer1.1.conv1..conv2", "layer2.0.downsample"]),
    (ResNet, IMAGES, ["layer2.0.conv1..conv2"]),
    (DiT, LATENTS, ["blocks.1", "blocks.0.mlp"]),
    (Indexed, torch.randn(2, 5, 12), ["layers.1"]),
]


def run(model, inputs):
    with torch.no_grad():
        return model.eval()(*inputs) if isinstance(inputs, tuple) else model.eval()(inputs)


@pytest.mark.parametrize(("kind", "inputs", "names"), CASES)
def test_it_is_the_model_with_them_left_out(kind, inputs, names):
    model = kind().eval()
    found = prune_core.blocks(model, inputs)
    with left_out(model, found, [found[name] for name in names]):
        expected = run(model, inputs)
    report = prune_core.remove_blocks(model, inputs, names)
    assert torch.equal(run(model, inputs), expected)
    assert report.comparison.ok
    assert "the example in training" in report.verified
    gone = sum(found[name].parameters for name in names)
    assert report.parameters[1] == report.parameters[0] - gone
    assert report.parameters[1] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("kind", "inputs", "names"), CASES)
def test_it_can_be_copied_pickled_saved_and_loaded(kind, inputs, names, tmp_path):
    torch.manual_seed(1)
    model, other = kind().eval(), kind().eval()
    report = prune_core.remove_blocks(model, inputs, names)
    expected = run(model, inputs)
    report.save(tmp_path / "model.safetensors")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    loaded = prune_core.load_pruned(other, tmp_path / "model.safetensors")
    pickled = pickle.loads(pickle.dumps(model))
    for each in (loaded, copy.deepcopy(model), pickled):
        assert torch.equal(run(each, inputs), expected)
        each.load_state_dict(torch.load(tmp_path / "state.pt"))


def test_the_other_layers_move_up_and_know_where_they_are():
    model = Transformer(4)
    kept = [model.layers[0], model.layers[2], model.layers[3]]
    report = prune_core.remove_blocks(model, TOKENS, "layers.1")
    assert [*model.layers] == kept
    assert [layer.index for layer in model.layers] == [0, 1, 2]
    assert report.shortened == {"layers": [0, 2, 3]}
    assert report.renamed == {"layers.2": "layers.1", "layers.3": "layers.2"}


def test_lists_that_are_read_by_index_keep_their_length():
    model = Indexed()
    report = prune_core.remove_blocks(model, torch.randn(2, 5, 12), "layers.1")
    assert report.stand_ins == {"layers.1": "skip"}
    assert len(model.layers) == 3
    assert not [*model.layers[1].parameters()]


def test_it_trains_afterwards():
    model = ResNet().train()
    prune_core.remove_blocks(model, IMAGES, ["layer1.0", "layer2.0.downsample"])
    assert model.training
    model(IMAGES).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_it_can_be_exported():
    model = DiT().eval()
    prune_core.remove_blocks(model, LATENTS, ["blocks.1", "blocks.0.attention"])
    program = torch.export.export(model, LATENTS)
    torch.testing.assert_close(program.module()(*LATENTS), run(model, LATENTS))


def every_second(model, *names):
    """Masks without every second output of some linear layers."""
    masks = {}
    for name in names:
        layer = model.get_submodule(name)
        keep = (torch.arange(layer.out_features) % 2).bool()
        masks[name] = {"weight": keep[:, None].expand_as(layer.weight), "bias": keep}
    return masks


def test_blocks_go_twice_and_channels_in_between(tmp_path):
    torch.manual_seed(0)
    model, dense = Transformer(4).eval(), Transformer(4).eval()
    prune_core.remove_blocks(model, TOKENS, "layers.2.attention")
    prune_core.shrink(model, TOKENS, every_second(model, "layers.3.mlp.0", "layers.1.mlp.0"))
    report = prune_core.remove_blocks(model, TOKENS, "layers.1")
    assert model.layers[2].mlp[0].out_features == 12
    report.save(tmp_path / "small.safetensors")
    loaded = prune_core.load_pruned(dense, tmp_path / "small.safetensors")
    assert torch.equal(run(loaded, TOKENS), run(model, TOKENS))


@pytest.mark.parametrize("size", [1, 3])
def test_bfloat16_and_other_batches(size):
    model = Transformer(3).to(torch.bfloat16)
    report = prune_core.remove_blocks(model, TOKENS[:size], "layers.1", verify_inputs=[TOKENS])
    assert "verify_inputs[0]" in report.verified


def test_an_unknown_name_is_refused_with_the_nearest():
    model = Transformer(2)
    with pytest.raises(ConfigError, match=r"atention' is no block.*layers\.0\.attention"):
        prune_core.remove_blocks(model, TOKENS, "layers.0.atention")


@pytest.mark.parametrize("names", [[], 3, [None]])
def test_what_is_no_name_is_refused(names):
    with pytest.raises(ConfigError, match="names is"):
        prune_core.remove_blocks(Transformer(2), TOKENS, names)


def test_a_model_keeps_one_block():
    model = Transformer(2)
    with pytest.raises(ConfigError, match="all 2 blocks"):
        prune_core.remove_blocks(model, TOKENS, ["layers.0", "layers.1"])
    assert len(model.layers) == 2


def test_what_cannot_go_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="returns 2×10×4×4"):
        prune_core.remove_blocks(ResNet(), IMAGES, "layer2.0")


class Stubborn(nn.Module):
    """Reads a weight of a branch elsewhere, so that nothing may stand in for it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        x = x + self.first(x)
        return x + self.second(x) * self.first.out_features / self.first.weight.shape[0]


def test_a_model_that_cannot_do_without_is_left_as_it_was():
    model = Stubborn()
    before = dict(model.named_modules())
    with pytest.raises(SpeedupError, match="it is left as it was"):
        prune_core.remove_blocks(model, torch.randn(2, 6), "first")
    assert dict(model.named_modules()) == before


def test_a_wrong_removal_is_noticed(monkeypatch):
    from prune_speedup.torch.depth import standins

    def doubled(self, x):
        return 2 * x

    monkeypatch.setattr(standins.Skip, "hidden", doubled)
    model = Indexed()
    monkeypatch.setattr("prune_speedup.torch.depth.reference.Skip", _Honest)
    with pytest.raises(PruneError, match="something else"):
        prune_core.remove_blocks(model, torch.randn(2, 5, 12), "layers.1")
    assert [*model.layers[1].parameters()]


class _Honest:
    def __init__(self, position, name, form):
        self.forward = lambda x: x


def test_a_file_of_another_model_is_refused_and_the_model_untouched(tmp_path):
    path = tmp_path / "small.safetensors"
    prune_core.remove_blocks(Transformer(4), TOKENS, "layers.3").save(path)
    model = Transformer(3)
    with pytest.raises(SpeedupError, match="blocks|keeps"):
        prune_core.load_pruned(model, path)
    assert len(model.layers) == 3


def test_channels_first_in_a_row_whose_entries_have_names(tmp_path):
    def build():
        torch.manual_seed(0)
        row = OrderedDict((f"layer_{index}", Layer(12)) for index in range(3))
        return nn.Sequential(nn.Linear(4, 12), nn.Sequential(row)).eval()

    inputs = torch.randn(2, 5, 4)
    model = build()
    prune_core.shrink(model, inputs, every_second(model, "1.layer_1.mlp.0", "1.layer_2.mlp.0"))
    report = prune_core.remove_blocks(model, inputs, "1.layer_1")
    assert [*model[1]._modules] == ["layer_0", "layer_2"]
    report.save(tmp_path / "small.safetensors")
    loaded = prune_core.load_pruned(build(), tmp_path / "small.safetensors")
    assert torch.equal(run(loaded, inputs), run(model, inputs))


def test_a_file_cannot_set_what_it_likes_in_a_config():
    class Config:
        def __init__(self):
            self.layers, self.types = 4, ["a", "b", "a", "b"]

        def to_dict(self):
            return vars(self)

    model = Transformer(4)
    model.config = Config()
    for keys, value in ([["layers"], 9], [["types"], ["c"]], [["other"], 1], [["__dict__"], 1]):
        step = Step({"layers": [0, 1]}, config={"": [(keys, value)]})
        with pytest.raises(SpeedupError, match="in a config"):
            step.apply(copy.deepcopy(model))
    Step({"layers": [0, 1]}, config={"": [(["types"], ["a", "b"])]}).apply(model)
    assert model.config.types == ["a", "b"]

"""Which blocks and branches a model has, and what can be taken out."""

import pytest
import torch
from residual_models import DiT, Indexed, ResNet, Shared, Transformer
from torch import nn

import prune_core
from prune_core import ConfigError

TOKENS = torch.arange(18).reshape(2, 9) % 20
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LATENTS = torch.randn(2, 4, 8, 8), torch.rand(2)


def kinds(found):
    return [(each.name, each.kind) for each in found]


def test_a_layer_of_a_transformer_is_a_block_with_two_branches():
    found = prune_core.blocks(Transformer(2).eval(), TOKENS)
    assert kinds(found) == [
        ("layers.0", "block"),
        ("layers.0.attention", "attention"),
        ("layers.0.mlp", "mlp"),
        ("layers.1", "block"),
        ("layers.1.attention", "attention"),
        ("layers.1.mlp", "mlp"),
    ]
    assert not any(each.reason for each in found)


def test_parameters_and_flops_are_those_of_the_modules_that_go():
    model = Transformer(2)
    found = prune_core.blocks(model, TOKENS)
    layer = model.layers[0]
    own = sum(p.numel() for p in layer.parameters())
    assert found["layers.0"].parameters == own
    parts = found["layers.0.attention"], found["layers.0.mlp"]
    assert sum(each.parameters for each in parts) == own
    # Two linear layers of 12 × 24 weights, on 18 tokens.
    assert found["layers.0.mlp"].flops == 2 * 2 * 12 * 24 * 18
    assert found["layers.0"].flops == sum(each.flops for each in parts)


def test_a_block_that_changes_the_shape_says_so_and_its_branches_are_there():
    found = prune_core.blocks(ResNet(), IMAGES)
    assert [each.name for each in found.of_kind("block")] == ["layer1.0", "layer1.1", "layer2.1"]
    assert found["layer2.0"].reason == "it is given 2×6×8×8 and returns 2×10×4×4"
    assert found["layer1.0.conv1..conv2"].kind == "convolution"
    assert found["layer2.0.downsample"].modules == ("layer2.0.downsample",)
    assert "stays: it is given 2×6×8×8" in str(found)


def test_an_embedding_of_positions_is_no_branch():
    assert not any("position" in each.name for each in prune_core.blocks(Transformer(2), TOKENS))


def test_a_gated_branch_of_a_diffusion_transformer_is_found():
    found = prune_core.blocks(DiT(2), LATENTS)
    assert [each.name for each in found.of_kind("block")] == ["blocks.0", "blocks.1"]
    assert [each.name for each in found.of_kind("attention")] == [
        "blocks.0.attention",
        "blocks.1.attention",
    ]


def test_what_runs_several_times_stays_and_says_why():
    [shared] = prune_core.blocks(Shared(), torch.randn(1, 4, 12))
    assert (shared.name, shared.reason) == ("layer", "it runs 3 times")


def test_a_model_without_residual_branches_has_none():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    assert len(prune_core.blocks(model, torch.randn(2, 4))) == 0
    with pytest.raises(ConfigError, match="no residual branches"):
        prune_core.remove_blocks(model, torch.randn(2, 4), "0")


def test_looking_leaves_the_model_as_it_was():
    model = ResNet().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prune_core.blocks(model, IMAGES)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_lists_that_are_read_side_by_side_have_their_blocks():
    names = prune_core.blocks(Indexed(), torch.randn(2, 5, 12)).names
    assert [name for name in names if name.count(".") == 1] == ["layers.0", "layers.1", "layers.2"]

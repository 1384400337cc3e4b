"""Every data-free criterion prunes a single tensor as it prunes a model."""

import pytest
import torch
from torch import nn

import prune_core.functional as prune
from prune_core import ConfigError, get_pruner


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Conv2d(4, 8, 3)


@pytest.mark.parametrize("name", ["level", "l1", "l2", "fpgm"])
def test_the_mask_is_that_of_the_pruner(layer, name):
    config = [{"op_names": ["0"], "sparsity": 0.5}]
    model = nn.Sequential(nn.Conv2d(4, 8, 3))
    model[0].load_state_dict(layer.state_dict())
    _, masks = get_pruner(name)(model, config).compress()
    parameter = layer.weight
    assert prune.criterion(layer, "weight", name, sparsity=0.5) is layer
    assert layer.weight_orig is parameter
    assert torch.equal(layer.weight_mask.bool(), masks["0"]["weight"])


def test_what_is_pruned_already_counts(layer):
    prune.l1_unstructured(layer, "weight", amount=0.25)
    first = layer.weight_mask.bool()
    prune.criterion(layer, "weight", "level", sparsity=0.5)
    assert layer.weight_mask.mean() == 0.5
    assert not (layer.weight_mask.bool() & ~first).any()


def test_options_reach_the_algorithm(layer):
    prune.criterion(layer, "weight", "nm", sparsity=0.5, n=2, m=4)
    assert (layer.weight_mask.sum(1) == 2).all()


def test_data_driven_criteria_see_the_layer_alone(layer):
    x = torch.randn(2, 4, 6, 6)
    prune.criterion(
        layer, "weight", "taylorfo", sparsity=0.5, calibrate=lambda m: m(x).sum().backward()
    )
    assert layer.weight_mask.flatten(1).any(1).sum() == 4
    assert layer.weight_orig.grad is None


def test_only_the_weight(layer):
    with pytest.raises(ConfigError, match="name is 'bias'; 'l1' prunes 'weight' of a Conv2d"):
        prune.criterion(layer, "bias", "l1", sparsity=0.5)
    assert not prune.is_pruned(layer)


def test_beside_a_bias_that_is_pruned_already():
    layer = prune.l1_unstructured(nn.Linear(4, 4), "bias", 2)
    prune.criterion(layer, "weight", "l1", sparsity=0.5)
    assert (layer.weight_mask.sum(), layer.bias_mask.sum()) == (8, 2)

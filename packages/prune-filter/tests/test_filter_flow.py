"""SynFlow on models that are more than a chain of matrices."""

import pytest
import torch
from torch import nn

from prune_core import PruneError
from prune_filter import SynFlowPruner

RULES = [{"total_sparsity": 0.9, "op_types": ["Conv2d", "Linear"]}]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip


def test_the_sparsity_is_reached_and_the_model_is_as_it_was():
    model = network().train()
    model(torch.randn(4, 3, 6, 6))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruner = SynFlowPruner(model, RULES, dummy_input=torch.randn(1, 3, 6, 6))
    _, masks = pruner.compress()
    total = sum(mask["weight"].numel() for mask in masks.values())
    kept = sum(int(mask["weight"].sum()) for mask in masks.values())
    assert kept == total - int(0.9 * total)
    assert model.training
    with pruner.plain():
        after = model.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        assert model[0].weight.grad is None


def test_no_layer_is_lost_that_one_shot_would_lose():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 4), nn.ReLU())
    model.append(nn.Linear(4, 4))
    rules = [{"total_sparsity": 0.99, "op_types": ["Linear"], "max_sparsity_per_layer": 1.0}]
    model, masks = SynFlowPruner(model, rules, dummy_input=torch.ones(1, 32)).compress()
    assert all(mask["weight"].any() for mask in masks.values())
    assert model(torch.ones(1, 32)).abs().sum() > 0


def test_frozen_and_half_precision_models():
    model = network().to(torch.bfloat16).requires_grad_(False)
    dummy_input = torch.ones(1, 3, 6, 6, dtype=torch.bfloat16)
    _, masks = SynFlowPruner(model, RULES, dummy_input=dummy_input, rounds=5).compress()
    assert not masks["0"]["weight"].all()
    assert model[0].module.weight.dtype == torch.bfloat16
    assert not model[0].module.weight.requires_grad


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.fc = nn.Embedding(5, 4), nn.Linear(4, 2)

    def forward(self, tokens, scale):
        return {"logits": self.fc(self.embed(tokens) * scale)}


@pytest.mark.parametrize("as_mapping", [False, True])
def test_inputs_and_outputs_of_many_forms(as_mapping):
    tokens, scale = torch.tensor([[0, 3]]), torch.full((1, 2, 1), 2.0)
    given = {"scale": scale, "tokens": tokens} if as_mapping else (tokens, scale)
    rules = [{"total_sparsity": 0.5, "op_types": ["Linear"]}]
    _, masks = SynFlowPruner(TwoInputs(), rules, dummy_input=given).compress()
    assert int(masks["fc"]["weight"].sum()) == 4


def test_a_model_that_nothing_flows_through():
    model = nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 2, bias=False))
    rules = [{"total_sparsity": 0.5, "op_types": ["Linear"]}]
    pruner = SynFlowPruner(model, rules, dummy_input=torch.ones(1, 4))
    with pytest.raises(PruneError, match="Nothing flows from the input to the output"):
        pruner.compress()

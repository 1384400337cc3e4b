"""Zeros stay zeros, whatever optimizer there is."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from prune_core.errors import MaskError
from prune_recover import keep_zeros

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))


class Mixing(Optimizer):
    """Fills every value of every weight, whatever its gradient is."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter += 0.1


def sparse():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight[torch.rand_like(layer.weight) < 0.5] = 0
        model[0].bias.zero_()
    return model


def train(model, optimizer, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, 0.01, momentum=0.9, weight_decay=0.1, nesterov=True),
        lambda p: AdamW(p, 0.01),
        Mixing,
    ],
    ids=["SGD", "AdamW", "Mixing"],
)
def test_they_stay_and_all_else_is_trained(make):
    model = sparse()
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    with keep_zeros(model) as zeros:
        train(model, make(model.parameters()))
    assert zeros.count == sum(int((before[f"{n}.weight"] == 0).sum()) for n in (0, 2))
    for name, tensor in model.named_parameters():
        changed = tensor != before[name]
        wanted = before[name] != 0 if name.endswith("weight") else torch.ones_like(changed)
        if name == "0.bias":  # some units are dead
            assert changed.any()
        elif name == "2.weight":
            assert not changed[~wanted].any()
            assert changed.any()
        else:
            assert not changed[~wanted].any()


def test_momentum_from_before_does_not_fill_them():
    model = sparse()
    dense = model[2].weight.detach() == 0
    optimizer = SGD(model.parameters(), 0.01, momentum=0.9)
    train(model, optimizer)  # fills them, and leaves momentum
    with torch.no_grad():
        model[2].weight[dense] = 0
    with keep_zeros(model):
        train(model, optimizer)
    assert not model[2].weight[dense].any()


def test_afterwards_nothing_is_kept():
    model = sparse()
    with keep_zeros(model):
        pass
    train(model, Mixing(model.parameters()))
    assert bool((model[0].weight != 0).all())


def test_what_is_zero_throughout_is_trained_unless_masks_say_so():
    model = sparse()
    nn.init.zeros_(model[2].weight)
    with keep_zeros(model):
        train(model, Mixing(model.parameters()), 1)
    assert bool((model[2].weight == 0.1).all())
    masks = {"2": {"weight": torch.zeros(3, 16), "bias": torch.tensor([1, 0, 1])}}
    with keep_zeros(model, masks) as zeros:
        assert zeros.count == 49
        train(model, Mixing(model.parameters()), 1)
    assert not model[2].weight.any()
    assert (model[2].bias == 0).tolist() == [False, True, False]


def test_masks_of_another_model():
    model = sparse()
    with (
        pytest.raises(MaskError, match=r"has '1\.fc'; the model has no such module"),
        keep_zeros(model, {"1.fc": {}}),
    ):
        pass
    with (
        pytest.raises(MaskError, match=r"\(2, 2\); the tensor has \(16, 6\)"),
        keep_zeros(model, {"0": {"weight": torch.ones(2, 2)}}),
    ):
        pass

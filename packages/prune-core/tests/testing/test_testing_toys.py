"""The toy models run, are reproducible, and leave the caller's random numbers alone."""

import pytest
import torch
from torch import nn

from prune_core.testing import MLP, ConvNet, LeNet, ResidualNet, make_batch, make_toy

TOYS = [ConvNet, MLP, ResidualNet, LeNet]


@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_scores_ten_classes(toy):
    images, labels = make_batch(toy, 3)
    assert make_toy(toy)(images).shape == (3, 10)
    assert labels.shape == (3,)


@pytest.mark.parametrize("toy", TOYS)
def test_a_seed_gives_the_same_weights_and_another_gives_others(toy):
    first, again, other = make_toy(toy), make_toy(toy), make_toy(toy, seed=1)
    weights = [parameter.flatten()[0].item() for parameter in first.parameters()]
    assert weights == [parameter.flatten()[0].item() for parameter in again.parameters()]
    assert weights != [parameter.flatten()[0].item() for parameter in other.parameters()]


def test_making_a_toy_does_not_disturb_the_seed():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make_toy(ConvNet)
    make_batch(ConvNet)
    assert torch.equal(torch.rand(3), expected)


def test_normalisations_do_something():
    for module in make_toy(ResidualNet).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean.abs().min() > 0
            assert (module.weight - 1).abs().max() > 0

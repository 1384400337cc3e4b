"""A schedule works with every registered criterion, by its name alone."""

import pytest
import torch
from torch import nn

from prune_core.testing import ConvNet, make_batch, make_toy
from prune_schedule import AGPPruner, LinearPruner

BY_WEIGHTS = ["level", "l1", "l2", "fpgm", "random", "random_weight"]
BY_DATA = ["apoz", "mean_activation", "taylorfo", "group_taylor", "hrank", "movement"]


def calibrate(model):
    images, labels = make_batch(size=8)
    nn.functional.cross_entropy(model(images), labels).backward()


@pytest.mark.parametrize("name", [*BY_WEIGHTS, *BY_DATA])
def test_sparsity_grows_with(name):
    model = make_toy(ConvNet)
    rules = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    arguments = {"calibrate": calibrate} if name in BY_DATA else {}
    pruner = LinearPruner(model, rules, f"prune-filter:{name}", 2, **arguments)
    result = pruner.run()
    for layer, n in (("conv1", 7), ("conv2", 12)):
        mask = result.masks[layer]["weight"]
        left = int(mask.flatten(1).any(1).sum())
        assert left == n - n // 2 or int(mask.sum()) == mask.numel() - mask.numel() // 2
    reached = [trial["sparsities"]["conv2"] for trial in result.trials]
    assert reached[0] == 0 < reached[1] < reached[2]


def test_agp_while_training_and_then_small():
    torch.manual_seed(0)
    model = make_toy(ConvNet)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rules = [{"final_sparsity": 0.5, "end_epoch": 4, "op_types": ["Conv2d"]}]
    pruner = AGPPruner(model, rules, optimizer, pruning_algorithm="l1")
    pruner.compress()
    images, labels = make_batch(size=8)
    for epoch in range(4):
        pruner.update_epoch(epoch)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert [int(m["weight"].flatten(1).any(1).sum()) for m in pruner.masks.values()] == [4, 6]

"""Reconstruction that makes the whole model worse is taken back, and said."""

import pytest
import torch
from torch import nn

import prune_core
from prune_core import PruneWarning
from prune_toolkit import LayerReconstructor

BATCHES = list(torch.randn(4, 16, 6, generator=torch.Generator().manual_seed(0)))


class Doubled(LayerReconstructor):
    """Makes every weight that stays twice as large."""

    def fit(self, layer):
        return 2 * layer.left, None


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 4)).eval()


def pruned(model, **options):
    asked = {"sparsity": 0.25, "example_inputs": BATCHES[0], "data": BATCHES}
    return prune_core.prune(model, "activation_norm", **asked, **options)


def test_what_makes_the_model_worse_is_taken_back():
    dense = net()
    with pytest.warns(PruneWarning, match=r"Doubled fitted each layer better, .* model as a whole"):
        model, _ = pruned(net(), reconstruct=Doubled())
    assert torch.equal(model[2].module.weight, dense[2].weight)
    alone, _ = pruned(net())
    assert torch.equal(model(BATCHES[0]), alone(BATCHES[0]))
    prune_core.unwrap(model, apply=False)
    assert torch.equal(model(BATCHES[0]), dense(BATCHES[0]))


def test_what_makes_it_better_stays():
    dense, x = net(), torch.cat(BATCHES)
    fitted, _ = pruned(net(), reconstruct="least_squares")
    alone, _ = pruned(net())
    assert (fitted(x) - dense(x)).square().sum() < (alone(x) - dense(x)).square().sum()

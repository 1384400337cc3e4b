"""Distillation as a step of pruning."""

import copy

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ChannelPruner
from prune_core.errors import PruneError
from prune_recover import Distillation
from prune_toolkit import NormMetricsCalculator, WeightDataCollector

BATCHES = list(torch.randn(64, 8, generator=torch.Generator().manual_seed(1)).split(16))


class Norms(ChannelPruner):
    """Prunes the channels with the smallest weights."""

    def collector(self):
        return WeightDataCollector(self, channels=True)

    def calculator(self):
        return NormMetricsCalculator(dim=0, p=1)


def net():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32, momentum=0.5), nn.ReLU(), nn.Linear(32, 16),
        nn.ReLU(), nn.Linear(16, 4),
    )  # fmt: skip
    for _ in range(5):  # the batch norm knows the data, as that of a trained model does
        run(model)
    return model.eval()


RULES = [{"sparsity": 0.5, "op_names": ["0", "3"]}]


def run(model):
    for batch in BATCHES:
        model(batch)


def error(model, dense):
    return sum((model(x) - dense(x)).square().mean().item() for x in BATCHES)


def pruned(model, reconstruct, calibrate=run):
    return Norms(model, RULES, calibrate=calibrate, reconstruct=reconstruct).compress()[0]


def test_what_stays_makes_up_for_what_goes():
    dense = net()
    alone, distilled = (error(pruned(net(), how), dense) for how in (None, "distill"))
    assert distilled < 0.8 * alone


def test_unwrapping_without_applying_gives_the_dense_model_back():
    dense, model = net(), net()
    pruned(model, ["batch_norm", Distillation(epochs=2, learning_rate=1e-2)])
    prune_core.unwrap(model, apply=False)
    for (name, one), two in zip(
        model.state_dict().items(), dense.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


def test_unwrapping_gives_a_plain_model_that_computes_the_same():
    model = net()
    pruned(model, "distill")
    wanted = model(BATCHES[0]).detach()
    plain = prune_core.unwrap(model)
    torch.testing.assert_close(plain(BATCHES[0]), wanted)
    assert int((plain[0].weight == 0).all(1).sum()) == 16


def test_an_error_leaves_the_model_as_it_was():
    dense, model = net(), net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PruneError, match="loss is nan"):
        pruned(model, "distill", calibrate=lambda model: model(BATCHES[0] * float("nan")))
    prune_core.unwrap(model, apply=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert dense[0].weight.shape == model[0].weight.shape

"""Modes and arguments that do not fit are refused with a way out."""

import pytest
import torch
from torch import nn

from prune_core import ConfigError
from prune_core.registry import entries
from prune_filter import (
    ActivationAPoZRankPruner,
    FPGMPruner,
    GraSPPruner,
    L1NormPruner,
    LevelPruner,
    NMPruner,
    RandomPruner,
    SlimPruner,
    SynFlowPruner,
    TaylorFOWeightPruner,
)

RULES = [{"sparsity": 0.5, "op_types": ["Linear"]}]


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(4, 4))


class Sum(nn.Module):
    """Two convolutions whose outputs are added."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.head((self.a(x) + self.b(x)).relu())


def runs(model):
    model(torch.ones(2, 3, 4, 4)).square().sum().backward()


@pytest.mark.parametrize(
    ("pruner", "options"),
    [
        (L1NormPruner, {"mode": "dependency_aware"}),
        (L1NormPruner, {"dependency_aware": True}),
        (FPGMPruner, {"mode": "dependency_aware"}),
        (RandomPruner, {"dependency_aware": True}),
        (ActivationAPoZRankPruner, {"mode": "dependency_aware", "calibrate": runs}),
        (TaylorFOWeightPruner, {"mode": "dependency_aware", "calibrate": runs}),
    ],
)
def test_what_is_added_loses_the_same_channels(pruner, options):
    torch.manual_seed(0)
    model, x = Sum(), torch.ones(1, 3, 4, 4)
    rules = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    _, masks = pruner(model, rules, dummy_input=x, **options).compress(x)
    assert torch.equal(masks["a"]["bias"], masks["b"]["bias"])
    assert masks["a"]["bias"].sum() == 3
    assert masks["head"]["weight"].all()


def test_dependencies_are_found_with_an_input(model):
    with pytest.raises(ConfigError, match="dummy_input="):
        L1NormPruner(model, RULES, mode="dependency_aware")
    assert isinstance(model[0], nn.Linear)


def test_a_mode_that_is_not_there(model):
    with pytest.raises(ConfigError, match="mode is 'globl'; the modes of LevelPruner are 'normal'"):
        LevelPruner(model, RULES, mode="globl")
    with pytest.raises(ConfigError, match="the modes of L1NormPruner"):
        L1NormPruner(model, RULES, mode="balance")


def test_each_mode_that_is_announced_is_there():
    for entry in entries("pruner"):
        if entry.plugin.distribution == "prune-filter":
            known = {"normal", "global", "balance", "dependency_aware"}
            assert set(entry.load().modes) <= known


def test_balance_needs_a_block(model):
    with pytest.raises(ConfigError, match="balance_gran is missing"):
        LevelPruner(model, RULES, mode="balance")
    with pytest.raises(ConfigError, match="cannot be cut into blocks of \\[3\\]"):
        LevelPruner(model, RULES, mode="balance", balance_gran=[3]).compress()


def test_ranking_together_needs_a_ratio_for_all(model):
    rules = [{"sparsity_per_layer": 0.5, "op_types": ["Linear"]}]
    with pytest.raises(ConfigError, match="write 'total_sparsity'"):
        LevelPruner(model, rules, mode="global").compress()


def test_n_of_m_has_only_one_ratio(model):
    with pytest.raises(ConfigError, match=r"keeping 1 of every 4 prunes 0.75"):
        NMPruner(model, RULES, n=1, m=4)
    with pytest.raises(ConfigError, match="0 < n < m"):
        NMPruner(model, RULES, n=4, m=4)
    assert isinstance(model[0], nn.Linear)


def test_nothing_to_run_the_model_with(model):
    with pytest.raises(ConfigError, match=r"got nothing to run it with. Give calibrate="):
        TaylorFOWeightPruner(model, RULES)


def test_a_trainer_needs_what_it_takes(model):
    with pytest.raises(ConfigError, match="takes the optimizer, and no traced_optimizer"):
        TaylorFOWeightPruner(model, RULES, lambda model, optimizer, criterion: None)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ConfigError, match="takes the criterion, and no criterion"):
        TaylorFOWeightPruner(model, RULES, lambda *args: None, optimizer)
    TaylorFOWeightPruner(model, RULES, lambda model, epochs=3: None)


def test_arguments_that_mean_the_same(model):
    with pytest.raises(ConfigError, match="batches and training_batches, which mean the same"):
        TaylorFOWeightPruner(
            model, RULES, calibrate=lambda model: None, batches=1, training_batches=2
        )
    with pytest.raises(ConfigError, match="trainer and calibrate, which mean the same"):
        TaylorFOWeightPruner(model, RULES, lambda *args: None, calibrate=lambda model: None)


def test_arguments_that_nobody_knows(model):
    with pytest.raises(
        TypeError, match="TaylorFOWeightPruner takes no 'bathces'. Did you mean 'batches'"
    ):
        TaylorFOWeightPruner(model, RULES, calibrate=lambda model: None, bathces=2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda m: TaylorFOWeightPruner(m, RULES, calibrate=3), "calibrate is 3; it must be"),
        (lambda m: GraSPPruner(m, RULES, calibrate=3), "calibrate is 3; it must be"),
        (
            lambda m: TaylorFOWeightPruner(m, RULES, calibrate=print, batches=0),
            "batches is 0; it must be a whole number of at least 1",
        ),
        (
            lambda m: ActivationAPoZRankPruner(m, RULES, calibrate=print, activation="gelu"),
            "activation is 'gelu'; it must be one of 'relu', 'relu6'",
        ),
        (lambda m: SynFlowPruner(m, RULES), "got no dummy_input"),
        (lambda m: SynFlowPruner(m, RULES, torch.ones(1, 4), rounds=0), "rounds is 0"),
        (
            lambda m: SlimPruner(m, [{"sparsity": 0.5, "op_types": ["BatchNorm1d"]}], scale=-1),
            "scale is -1",
        ),
    ],
)
def test_values_that_cannot_be(build, message):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ConfigError, match=message):
        build(model)
    assert isinstance(model[0], nn.Linear)

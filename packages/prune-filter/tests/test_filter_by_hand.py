"""Masks that a person can check without a computer."""

import pytest
import torch
from torch import nn

from prune_filter import (
    ActivationAPoZRankPruner,
    ActivationMeanRankPruner,
    FPGMPruner,
    GraSPPruner,
    GroupTaylorPruner,
    HRankPruner,
    L1NormPruner,
    L2NormPruner,
    LevelPruner,
    MovementPruner,
    NMPruner,
    SlimPruner,
    SNIPPruner,
    SynFlowPruner,
    TaylorFOWeightPruner,
)


def linear(weight, bias=True):
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias:
            layer.bias.zero_()
    return nn.Sequential(layer)


def half(pruner, model, sparsity=0.5, types="Linear", **options):
    _, masks = pruner(model, [{"sparsity": sparsity, "op_types": [types]}], **options).compress()
    return masks["0"]


def rows(mask):
    return mask["weight"].flatten(1).any(1).tolist()


def test_level():
    model = linear([[1.0, -4.0], [-2.0, 3.0]])
    assert half(LevelPruner, model)["weight"].tolist() == [[False, True], [False, True]]


def test_level_takes_the_first_of_equal_weights():
    model = linear([[1.0, -1.0], [1.0, 1.0]])
    assert half(LevelPruner, model)["weight"].tolist() == [[False, False], [True, True]]


def test_level_in_balanced_blocks():
    model = linear([[1.0, 2.0, 30.0, 40.0]])
    mask = half(LevelPruner, model, mode="balance", balance_gran=[1, 2])
    assert mask["weight"].tolist() == [[False, True, False, True]]


def test_level_over_all_layers():
    model = nn.Sequential(*linear([[1.0, 2.0]], bias=False), *linear([[3.0], [4.0]], bias=False))
    rules = [
        {"total_sparsity": 0.5, "op_types": ["Linear"], "max_sparsity_per_layer": 1.0},
    ]
    _, masks = LevelPruner(model, rules, mode="global").compress()
    assert masks["0"]["weight"].tolist() == [[False, False]]
    assert masks["1"]["weight"].tolist() == [[True], [True]]


@pytest.mark.parametrize(
    ("pruner", "kept"), [(L1NormPruner, [True, False]), (L2NormPruner, [False, True])]
)
def test_the_two_norms_differ(pruner, kept):
    model = linear([[3.0, 3.0], [0.0, 5.0]])  # L1: 6 and 5; L2: 4.2 and 5
    mask = half(pruner, model)
    assert rows(mask) == kept
    assert mask["bias"].tolist() == kept


def test_fpgm_prunes_what_others_resemble_and_not_what_is_small():
    # Distances: 0 to others 1 + 11 = 12; 1 to others 1 + 10 = 11; 11 to others 11 + 10 = 21.
    mask = half(FPGMPruner, linear([[0.0], [1.0], [11.0]]), sparsity=1 / 3)
    assert rows(mask) == [True, False, True]


def test_activations_that_are_zero_most_often():
    model = linear([[1.0], [-1.0]])
    inputs = torch.tensor([[1.0], [2.0], [3.0], [-1.0]])  # alive 3 of 4 times, 1 of 4 times
    mask = half(ActivationAPoZRankPruner, model, calibrate=lambda model: model(inputs))
    assert rows(mask) == [True, False]


def test_mean_activations():
    model = linear([[1.0], [-1.0]])
    inputs = torch.tensor([[1.0], [2.0], [3.0], [-10.0]])  # means 6/4 and 10/4
    mask = half(ActivationMeanRankPruner, model, calibrate=lambda model: model(inputs))
    assert rows(mask) == [False, True]


def test_relu6_cuts_what_is_above_six():
    model = linear([[1.0], [-1.0]])
    inputs = torch.tensor([[4.0], [4.0], [-10.0]])  # 8/3, and 10/3 or, cut, 6/3
    for activation, kept in [("relu", [False, True]), ("relu6", [True, False])]:
        mask = half(
            ActivationMeanRankPruner,
            linear([[1.0], [-1.0]]),
            calibrate=lambda model: model(inputs),
            activation=activation,
        )
        assert rows(mask) == kept
    assert model[0].weight.tolist() == [[1.0], [-1.0]]


def run(*losses):
    def calibrate(model):
        for loss in losses:
            loss(model[0]).backward()
            model(torch.zeros(1, 2))  # counts as a batch

    return calibrate


def weighted(gradient):
    """Return a loss of a layer whose gradient is the given one."""
    return lambda layer: (layer.weight * torch.tensor(gradient)).sum()


def test_taylor_adds_squares():
    # Row 0: (2·1)² + (−2·1)² = 8; row 1: (1·2)² + (0·2)² = 4.
    model = linear([[1.0, 1.0], [2.0, 2.0]])
    mask = half(TaylorFOWeightPruner, model, calibrate=run(weighted([[2.0, -2.0], [1.0, 0.0]])))
    assert rows(mask) == [True, False]


def test_group_taylor_squares_sums():
    # Row 0: (2·1 − 2·1)² = 0; row 1: (1·2 + 0·2)² = 4.
    model = linear([[1.0, 1.0], [2.0, 2.0]])
    mask = half(GroupTaylorPruner, model, calibrate=run(weighted([[2.0, -2.0], [1.0, 0.0]])))
    assert rows(mask) == [False, True]


def test_snip_adds_batches_before_it_takes_the_absolute_value():
    model = linear([[1.0, 1.0], [1.0, 1.0]])
    losses = weighted([[3.0, -1.0], [2.0, 0.5]]), weighted([[-3.0, -1.0], [0.0, 0.5]])
    mask = half(SNIPPruner, model, calibrate=run(*losses))  # sums 0, −2, 2, 1
    assert mask["weight"].tolist() == [[False, True], [True, False]]


def test_movement_prunes_what_goes_to_zero():
    # −w·g: −1, 1, 2, −2: the gradient step makes the first and the last smaller.
    model = linear([[1.0, -1.0], [2.0, -2.0]])
    mask = half(MovementPruner, model, calibrate=run(weighted([[1.0, 1.0], [-1.0, -1.0]])))
    assert mask["weight"].tolist() == [[False, True], [True, False]]


def test_grasp_keeps_what_the_gradient_flows_through():
    # loss = Σ aᵢwᵢ²/2: g = a·w, H = diag(a), so w·Hg = a²w².
    model = linear([[1.0, 2.0], [3.0, 1.0]])
    curvature = torch.tensor([[1.0, 3.0], [1.0, 2.0]])  # scores 1, 36, 9, 4
    mask = half(
        GraSPPruner, model, calibrate=lambda m: (curvature * m[0].weight.square()).sum() / 2
    )
    assert mask["weight"].tolist() == [[False, True], [True, False]]


def test_synflow_counts_paths():
    # R = Σ over paths; weights of layer 0 score |w|·(what leads on), here 1 and 10 for its rows.
    model = nn.Sequential(*linear([[-5.0], [1.0]]), nn.ReLU(), *linear([[1.0, -10.0]]))
    rules = [{"total_sparsity": 0.5, "op_types": ["Linear"]}]
    _, masks = SynFlowPruner(model, rules, dummy_input=torch.zeros(1, 1), rounds=1).compress()
    assert masks["0"]["weight"].tolist() == [[False], [True]]
    assert masks["2"]["weight"].tolist() == [[False, True]]


def test_two_of_four():
    model = linear([[1.0, -4.0, 3.0, 2.0, 5.0, 5.0, -5.0, 5.0]])
    assert half(NMPruner, model)["weight"].int().tolist() == [[0, 1, 1, 0, 0, 0, 1, 1]]


def test_slim_ranks_all_batch_norms_together():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.1, -0.2]))
        model[1].weight.copy_(torch.tensor([-0.15, 3.0]))
    rules = [{"sparsity": 0.5, "op_types": ["BatchNorm1d"]}]  # as in the oldest tutorials
    _, masks = SlimPruner(model, rules).compress()
    assert masks["0"]["weight"].tolist() == [False, True]
    assert masks["1"]["weight"].tolist() == [False, True]
    assert masks["1"]["bias"].tolist() == [False, True]


def test_hrank_keeps_maps_of_high_rank():
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2).reshape(2, 2, 1, 1))
    maps = torch.stack([torch.ones(3, 3), torch.eye(3)])  # rank 1 and rank 3
    mask = half(HRankPruner, model, types="Conv2d", calibrate=lambda model: model(maps[None]))
    assert rows(mask) == [False, True]

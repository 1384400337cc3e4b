"""Masks beside those of the formulas, computed with plain torch on random weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from prune_filter import (
    ActivationAPoZRankPruner,
    ActivationMeanRankPruner,
    FPGMPruner,
    L1NormPruner,
    L2NormPruner,
    LevelPruner,
    RandomPruner,
    SlimPruner,
    SynFlowPruner,
    TaylorFOWeightPruner,
)

SPARSITY = 0.4


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 12, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 16, 10),
    )  # fmt: skip


BATCHES = [torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (8, 5, 8)]
LABELS = [torch.arange(len(batch)) % 10 for batch in BATCHES]
RULES = [{"sparsity": SPARSITY, "op_types": ["Conv2d", "Linear"]}]
LAYERS = ("0", "2", "5")


def forward(model):
    for batch in BATCHES:
        model(batch)


def backward(model):
    for batch, labels in zip(BATCHES, LABELS, strict=True):
        F.cross_entropy(model(batch), labels).backward()


def keep_largest(scores, sparsity=SPARSITY):
    kept = torch.ones(len(scores), dtype=torch.bool)
    kept[torch.sort(scores, stable=True).indices[: int(sparsity * len(scores) + 1e-9)]] = False
    return kept


def assert_channels(masks, scores):
    for name, score in scores.items():
        expected = keep_largest(score)
        weight = masks[name]["weight"]
        assert torch.equal(weight.flatten(1).all(1), expected)
        assert torch.equal(weight.flatten(1).any(1), expected)
        assert torch.equal(masks[name]["bias"], expected)


def weights(model):
    return {name: model.get_submodule(name).weight.detach().flatten(1) for name in LAYERS}


@pytest.mark.parametrize(("pruner", "p"), [(L1NormPruner, 1), (L2NormPruner, 2)])
def test_norms(pruner, p):
    scores = {name: w.abs().pow(p).sum(1).pow(1 / p) for name, w in weights(network()).items()}
    _, masks = pruner(network(), RULES).compress()
    assert_channels(masks, scores)


def test_distances():
    scores = {
        name: torch.stack([(w - row).norm(dim=1).sum() for row in w])
        for name, w in weights(network()).items()
    }
    _, masks = FPGMPruner(network(), RULES).compress()
    assert_channels(masks, scores)


def outputs(model):
    gathered = {name: [] for name in LAYERS}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: gathered[name].append(output.detach())
        )
        for name in LAYERS
    ]
    forward(model)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(values).transpose(0, 1).flatten(1) for name, values in gathered.items()}


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_zeros_among_activations(activation):
    act = getattr(F, activation)
    scores = {name: 1 - (act(o) == 0).double().mean(1) for name, o in outputs(network()).items()}
    pruner = ActivationAPoZRankPruner(network(), RULES, calibrate=forward, activation=activation)
    assert_channels(pruner.compress()[1], scores)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_mean_activations(activation):
    act = getattr(F, activation)
    scores = {name: act(o).double().mean(1) for name, o in outputs(network()).items()}
    pruner = ActivationMeanRankPruner(network(), RULES, calibrate=forward, activation=activation)
    assert_channels(pruner.compress()[1], scores)


def taylor_scores(batches=3):
    model = network()
    scores = dict.fromkeys(LAYERS, 0)
    for batch, labels in list(zip(BATCHES, LABELS, strict=True))[:batches]:
        model.zero_grad()
        F.cross_entropy(model(batch), labels).backward()
        for name in LAYERS:
            weight = model.get_submodule(name).weight
            scores[name] = scores[name] + (weight * weight.grad).detach().square().flatten(1).sum(1)
    return scores


def test_taylor():
    pruner = TaylorFOWeightPruner(network(), RULES, calibrate=backward)
    assert_channels(pruner.compress()[1], taylor_scores())


def test_taylor_of_the_first_batches_only():
    pruner = TaylorFOWeightPruner(network(), RULES, calibrate=backward, batches=1)
    assert_channels(pruner.compress()[1], taylor_scores(batches=1))
    assert any(
        not torch.equal(keep_largest(one), keep_largest(all_))
        for one, all_ in zip(taylor_scores(1).values(), taylor_scores().values(), strict=True)
    )


def test_taylor_over_all_layers():
    scores, model = taylor_scores(), network()
    sizes = {name: w.shape[1] for name, w in weights(model).items()}
    ranked = sorted((float(s), name, i) for name, row in scores.items() for i, s in enumerate(row))
    left = int(0.5 * sum(sizes[name] * len(row) for name, row in scores.items()))
    expected = {name: torch.ones(len(row), dtype=torch.bool) for name, row in scores.items()}
    for _, name, index in ranked:
        left -= sizes[name]
        if left < 0:
            break
        expected[name][index] = False
    rules = [{"total_sparsity": 0.5, "op_types": ["Conv2d", "Linear"], "max_sparsity_per_layer": 1}]
    _, masks = TaylorFOWeightPruner(model, rules, calibrate=backward, mode="global").compress()
    for name, kept in expected.items():
        assert torch.equal(masks[name]["bias"], kept)


@pytest.mark.parametrize("mode", ["normal", "global"])
def test_level(mode):
    model = network()
    found = {name: w.abs() for name, w in weights(model).items()}
    groups = [LAYERS] if mode == "global" else [[name] for name in LAYERS]
    _, masks = LevelPruner(network(), RULES, mode=mode).compress()
    for group in groups:
        flat = torch.cat([found[name].flatten() for name in group])
        got = torch.cat([masks[name]["weight"].flatten() for name in group])
        assert torch.equal(got, keep_largest(flat))


@given(
    n=st.integers(1, 40),
    sparsity=st.integers(0, 99).map(lambda percent: percent / 100),
    equal=st.booleans(),
    pruner=st.sampled_from([L1NormPruner, L2NormPruner, FPGMPruner, RandomPruner, LevelPruner]),
)
@settings(max_examples=60, deadline=None)
def test_exactly_as_many_are_kept_as_asked(n, sparsity, equal, pruner):
    model = nn.Sequential(nn.Linear(1, n))
    if equal:
        nn.init.ones_(model[0].weight)
    _, masks = pruner(model, [{"sparsity": sparsity, "op_types": ["Linear"]}]).compress()
    kept = masks["0"]["weight"]
    assert int(kept.sum()) == n - round(sparsity * 100) * n // 100
    if equal and pruner is not RandomPruner:  # of equal ones the first go
        assert kept.flatten().int().tolist() == sorted(kept.flatten().int().tolist())


def test_slim_over_all_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3))
    model.append(nn.BatchNorm2d(16))
    for norm in (model[1], model[3]):
        nn.init.normal_(norm.weight)
    expected = keep_largest(torch.cat([model[1].weight, model[3].weight]).abs(), 0.5)
    rules = [{"total_sparsity": 0.5, "op_types": ["BatchNorm2d"]}]
    _, masks = SlimPruner(model, rules).compress()
    assert torch.equal(torch.cat([masks["1"]["weight"], masks["3"]["weight"]]), expected)


def test_synflow_in_rounds():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU())
    model.append(nn.Linear(20, 3))
    found = [model[i].weight.detach().double().abs() for i in (0, 2, 4)]
    biases = [model[i].bias.detach().double().abs() for i in (0, 2, 4)]
    kept, rounds, total = [torch.ones_like(w) for w in found], 10, sum(w.numel() for w in found)
    for done in range(1, rounds + 1):
        # Of a chain of positive matrices: R = Σ outputs, and ∂R/∂W = (what leads on)ᵀ × (input).
        inputs, before = torch.ones(6, dtype=torch.float64), []
        for w, k, b in zip(found, kept, biases, strict=True):
            before.append(inputs)
            inputs = (w * k) @ inputs + b
        after, flows = torch.ones(3, dtype=torch.float64), [None] * 3
        for i in (2, 1, 0):
            flows[i] = found[i] * kept[i] * torch.outer(after, before[i])
            after = after @ (found[i] * kept[i])
        sparsity = 1 - 0.1 ** (done / rounds)
        alive = torch.cat([k.flatten() for k in kept]).bool()
        flat = torch.cat([f.flatten() for f in flows]).masked_fill(~alive, -1.0)
        new = keep_largest(flat, sparsity).double().split([w.numel() for w in found])
        kept = [n.reshape(w.shape) for n, w in zip(new, found, strict=True)]
    assert int(sum(k.sum() for k in kept)) == total - int(0.9 * total)
    rules = [{"total_sparsity": 0.9, "op_types": ["Linear"], "max_sparsity_per_layer": 1.0}]
    _, masks = SynFlowPruner(model, rules, dummy_input=torch.randn(1, 6), rounds=rounds).compress()
    for name, expected in zip(("0", "2", "4"), kept, strict=True):
        assert torch.equal(masks[name]["weight"], expected.bool())

"""Masks and weights are those of the papers, computed here once more in the plainest way."""

import copy
from importlib import import_module
from itertools import combinations

import pytest
import torch
from torch import nn

from prune_core.amount import number_to_prune
from prune_oneshot import (
    ActivationNormPruner,
    ALPSPruner,
    ChannelOBSPruner,
    FLAPPruner,
    RIAPruner,
    SparseGPTPruner,
    WandaPruner,
)

GENERATOR = torch.Generator().manual_seed(0)
MIX = torch.randn(24, 24, generator=GENERATOR)
ROWS = [torch.randn(40, 24, generator=GENERATOR) @ MIX for _ in range(3)]
X = torch.cat(ROWS).double()


def calibrate(model):
    for rows in ROWS:
        model(rows)


def linear(outputs=16, bias=False):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, outputs, bias=bias))


def rules(sparsity, types="Linear"):
    return [{"op_types": [types], "sparsity": sparsity}]


def kept_in_rows(scores, lost):
    """Row by row, by sorting."""
    mask = torch.ones_like(scores, dtype=torch.bool)
    for row, kept in zip(scores, mask, strict=True):
        kept[row.argsort(stable=True)[:lost]] = False
    return mask


def kept_of_all(scores, lost):
    return kept_in_rows(scores.reshape(1, -1), lost).view(scores.shape)


def kept_of_groups(scores, n, m):
    return kept_in_rows(scores.reshape(-1, m), m - n).view(scores.shape)


def wanda(weight, x):
    return weight.abs().double() * x.norm(dim=0)


def ria(weight, x, power=0.5):
    size = weight.abs().double()
    shares = size / size.sum(0, keepdim=True) + size / size.sum(1, keepdim=True)
    return shares * x.norm(dim=0) ** power


# --- wanda and ria ----------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_wanda(sparsity):
    model = linear()
    scores = wanda(model[0].weight.detach(), X)
    _, masks = WandaPruner(model, rules(sparsity), calibrate=calibrate).compress()
    assert torch.equal(masks["0"]["weight"], kept_in_rows(scores, int(sparsity * 24)))


def test_wanda_with_n_of_m():
    model = linear()
    scores = wanda(model[0].weight.detach(), X)
    _, masks = WandaPruner(model, rules(0.5), n=2, m=4, calibrate=calibrate).compress()
    assert torch.equal(masks["0"]["weight"], kept_of_groups(scores, 2, 4))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_ria(power):
    model = linear()
    scores = ria(model[0].weight.detach(), X, power)
    _, masks = RIAPruner(model, rules(0.4), power=power, calibrate=calibrate).compress()
    assert torch.equal(masks["0"]["weight"], kept_of_all(scores, number_to_prune(0.4, 24 * 16)))


def test_modes_compare_other_scores():
    model = linear()
    scores = wanda(model[0].weight.detach(), X)
    _, masks = WandaPruner(model, rules(0.5), mode="normal", calibrate=calibrate).compress()
    assert torch.equal(masks["0"]["weight"], kept_of_all(scores, 24 * 8))
    model = linear()
    scores = ria(model[0].weight.detach(), X)
    _, masks = RIAPruner(model, rules(0.5), mode="row", calibrate=calibrate).compress()
    assert torch.equal(masks["0"]["weight"], kept_in_rows(scores, 12))


def test_a_convolution_is_a_linear_layer_on_its_patches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1))
    images = torch.randn(5, 3, 9, 9)
    patches = nn.functional.unfold(images, 3, stride=2, padding=1).transpose(1, 2).flatten(0, 1)
    scores = wanda(model[0].weight.detach().flatten(1), patches.double())
    pruner = WandaPruner(model, rules(1 / 3, "Conv2d"), calibrate=lambda m: m(images))
    _, masks = pruner.compress()
    assert torch.equal(masks["0"]["weight"].flatten(1), kept_in_rows(scores, 9))


def test_an_embedding_is_scored_by_how_often_its_words_come():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4))
    words = torch.tensor([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    counts = torch.bincount(words, minlength=10).double()
    scores = model[0].weight.detach().abs().double().T * counts.sqrt()
    pruner = WandaPruner(model, rules(0.5, "Embedding"), calibrate=lambda m: m(words))
    _, masks = pruner.compress()
    assert torch.equal(masks["0"]["weight"].T, kept_in_rows(scores, 5))


# --- sparsegpt --------------------------------------------------------------------------------


def sparsegpt(weight, x, sparsity=0.0, n=None, m=None, blocksize=128, damping=0.01):
    """Algorithm 1 of the paper, column after column, with the inverse itself."""
    w = weight.double().clone()
    hessian = x.T @ x / len(x)
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=w.dtype)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    rows, columns = w.shape
    mask = torch.ones_like(w, dtype=torch.bool)
    for start in range(0, columns, blocksize):
        end = min(start + blocksize, columns)
        if n is None:
            cost = (w[:, start:end] / factor.diagonal()[start:end]) ** 2
            lost = number_to_prune(sparsity, rows * end) - number_to_prune(sparsity, rows * start)
            mask[:, start:end] = kept_of_all(cost, lost)
        for j in range(start, end):
            if n is not None and j % m == 0:
                cost = (w[:, j : j + m] / factor.diagonal()[j : j + m]) ** 2
                mask[:, j : j + m] = kept_in_rows(cost, m - n)
            error = torch.where(mask[:, j], 0.0, w[:, j]) / factor[j, j]
            w[:, j:] -= error[:, None] * factor[j, j:]
    return mask, w * mask


@pytest.mark.parametrize(
    ("sparsity", "how"),
    [
        (0.5, {}),
        (0.5, {"blocksize": 8}),
        (0.7, {"blocksize": 5, "damping": 0.1}),
        (0.5, {"n": 2, "m": 4}),
        (2 / 3, {"n": 1, "m": 3}),
        (0.25, {"n": 6, "m": 8, "blocksize": 8}),
    ],
)
def test_sparsegpt(sparsity, how):
    model = linear(bias=True)
    weight = model[0].weight.detach().clone()
    _, masks = SparseGPTPruner(model, rules(sparsity), calibrate=calibrate, **how).compress()
    mask, expected = sparsegpt(weight, X, sparsity, **how)
    assert torch.equal(masks["0"]["weight"], mask)
    found = model[0].weight.detach().double() * mask
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert int(mask.sum()) == mask.numel() - number_to_prune(sparsity, mask.numel())


@pytest.mark.parametrize("pruner", [SparseGPTPruner, ALPSPruner])
def test_layers_that_read_one_tensor_share_a_decomposition(pruner, monkeypatch):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.q, self.k, self.v = (nn.Linear(24, 24) for _ in range(3))

        def forward(self, x):
            return self.q(x) * self.k(x) + self.v(x)

    calls = []
    where = import_module(pruner.__module__)
    hessian_of = where.hessian_of
    monkeypatch.setattr(
        where, "hessian_of", lambda *given: (calls.append(given[0]), hessian_of(*given))[1]
    )
    model = nn.Sequential(Attention(), nn.Linear(24, 200))  # an attention is a block of its own
    alone = {f"0.{name}": copy.deepcopy(each) for name, each in model[0].named_children()}
    _, masks = pruner(model, rules(0.5), calibrate=calibrate).compress()
    assert calls == ["0.q", "1"]
    for name, layer in alone.items():
        _, expected = pruner(nn.Sequential(layer), rules(0.5), calibrate=calibrate).compress()
        assert torch.equal(masks[name]["weight"], expected["0"]["weight"])


def test_sparsegpt_of_a_wide_layer_crosses_many_blocks():
    torch.manual_seed(1)
    x = torch.randn(600, 300) @ torch.randn(300, 300)
    model = nn.Sequential(nn.Linear(300, 7, bias=False))
    weight = model[0].weight.detach().clone()
    SparseGPTPruner(model, rules(0.5), calibrate=lambda m: m(x)).compress()
    _, expected = sparsegpt(weight, x.double(), 0.5)
    found = model[0].weight.detach().double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_sparsegpt_of_a_grouped_convolution_takes_each_group_by_itself():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False))
    images, weight = torch.randn(20, 4, 8, 8), model[0].weight.detach().clone()
    SparseGPTPruner(
        model, rules(0.5, "Conv2d"), calibrate=lambda m: m(images), blocksize=9
    ).compress()
    for group in range(2):
        half = images[:, 2 * group : 2 * group + 2]
        patches = nn.functional.unfold(half, 3).transpose(1, 2).flatten(0, 1).double()
        w = weight[3 * group : 3 * group + 3].flatten(1)
        found = model[0].weight.detach()[3 * group : 3 * group + 3].flatten(1)
        mask = found != 0
        # Columns are compared over both groups, so the mask is not that of one alone; given the
        # mask, the weights are.
        hessian = patches.T @ patches / len(patches)
        hessian += 0.01 * hessian.diagonal().mean() * torch.eye(18, dtype=torch.float64)
        factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
        expected = w.double().clone()
        for j in range(18):
            error = torch.where(mask[:, j], 0.0, expected[:, j]) / factor[j, j]
            expected[:, j:] -= error[:, None] * factor[j, j:]
        torch.testing.assert_close(found.double(), expected * mask, atol=1e-4, rtol=1e-3)


def test_groups_of_m_lie_along_the_input_channels():
    torch.manual_seed(0)
    for pruner in (SparseGPTPruner, ALPSPruner, WandaPruner):
        model = nn.Sequential(nn.Conv2d(8, 6, 3))
        images = torch.randn(4, 8, 8, 8)
        _, masks = pruner(
            model, rules(0.5, "Conv2d"), n=2, m=4, calibrate=lambda m, x=images: m(x)
        ).compress()
        groups = masks["0"]["weight"].movedim(1, -1).reshape(-1, 4)
        assert (groups.sum(1) == 2).all()


def test_sparsegpt_goes_on_from_masks_in_force():
    model = linear()
    pruner = SparseGPTPruner(model, rules(0.25), calibrate=calibrate, blocksize=8)
    first = pruner.compress()[1]["0"]["weight"].clone()
    for sparsity in (0.5, 0.1):  # less than is masked already changes nothing
        pruner.get_modules_wrapper()["0"].config["sparsity"] = sparsity
        mask = pruner.compress()[1]["0"]["weight"]
        assert not (mask & ~first).any()
        assert int(mask.sum()) == 24 * 8


# --- alps -------------------------------------------------------------------------------------


def error_of(weight, dense, x):
    return float(
        (x @ (weight - dense).double().T).square().sum() / (x @ dense.double().T).square().sum()
    )


@pytest.mark.parametrize(("sparsity", "how"), [(0.5, {}), (0.7, {}), (0.5, {"n": 2, "m": 4})])
def test_alps_leaves_less_error_than_others_and_fits_what_it_keeps(sparsity, how):
    errors = {}
    for pruner, more in (
        (ALPSPruner, {}),
        (SparseGPTPruner, {}),
        (WandaPruner, {}),
        (WandaPruner, {"reconstruct": "least_squares"}),
    ):
        model = linear()
        dense = model[0].weight.detach().clone()
        _, masks = pruner(model, rules(sparsity), calibrate=calibrate, **how, **more).compress()
        mask = masks["0"]["weight"]
        assert int(mask.sum()) == mask.numel() - number_to_prune(sparsity, mask.numel())
        errors[pruner.__name__, *more] = error_of(model[0].weight.detach(), dense, X)
    ordered = sorted(errors, key=errors.get)
    assert ordered[0] == ("ALPSPruner",)
    assert ordered[-1] == ("WandaPruner",)


def test_what_alps_keeps_is_the_least_squares_on_its_mask():
    model = linear()
    dense = model[0].weight.detach().clone()
    _, masks = ALPSPruner(model, rules(0.5), calibrate=calibrate).compress()
    mask, found = masks["0"]["weight"], model[0].weight.detach().double()
    gram = X.T @ X / len(X)
    hessian = gram + 0.01 * gram.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    for row, kept, w in zip(found, mask, dense.double(), strict=True):
        expected = torch.linalg.solve(hessian[kept][:, kept], hessian[kept] @ w)
        torch.testing.assert_close(row[kept], expected, atol=1e-4, rtol=1e-3)


def test_alps_finds_the_best_mask_where_that_can_be_tried():
    torch.manual_seed(3)
    x = torch.randn(200, 6).double() @ torch.randn(6, 6).double()
    model = nn.Sequential(nn.Linear(6, 1, bias=False))
    w = model[0].weight.detach().double()[0]
    gram = x.T @ x / len(x)
    hessian = gram + 0.01 * gram.diagonal().mean() * torch.eye(6, dtype=torch.float64)

    def cost(kept):
        v = torch.zeros(6, dtype=torch.float64)
        v[kept] = torch.linalg.solve(hessian[kept][:, kept], hessian[kept] @ w)
        return float((v - w) @ hessian @ (v - w))

    every = {subset: cost(list(subset)) for subset in combinations(range(6), 3)}
    _, masks = ALPSPruner(model, rules(0.5), calibrate=lambda m: m(x.float())).compress()
    found = tuple(masks["0"]["weight"][0].nonzero().flatten().tolist())
    assert sorted(every, key=every.get).index(found) <= 1  # of 20


# --- coupled channels -------------------------------------------------------------------------


class MLP(nn.Module):
    """Two readers of one hidden layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.gate = nn.Linear(24, 12), nn.Linear(24, 12)
        self.down, self.side = nn.Linear(12, 5, bias=False), nn.Linear(12, 3)

    def hidden(self, x):
        return torch.relu(self.up(x)) * torch.sigmoid(self.gate(x))

    def forward(self, x):
        hidden = self.hidden(x)
        return self.down(hidden), self.side(hidden)


HIDDEN = [{"op_names": ["up", "gate"], "sparsity": 0.5}]


def kept_units(pruner_class, model, **how):
    pruner = pruner_class(model, HIDDEN, calibrate=calibrate, **how)
    _, masks = pruner.compress()
    assert torch.equal(masks["up"]["bias"], masks["gate"]["bias"])
    return masks["up"]["bias"].bool()


def test_activation_norm():
    model = MLP()
    with torch.no_grad():
        hidden = model.hidden(X.float()).double()
        power = hidden.square().mean(0)
        scores = sum(
            power * reader.weight.double().square().sum(0) for reader in (model.down, model.side)
        )
    assert torch.equal(kept_units(ActivationNormPruner, model), kept_in_rows(scores[None], 6)[0])


def test_flap_and_the_bias_that_it_moves():
    model = MLP()
    dense = copy.deepcopy(model)
    with torch.no_grad():
        hidden = dense.hidden(X.float()).double()
        variance = hidden.var(0)
        scores = sum(
            variance * reader.weight.double().square().sum(0) for reader in (dense.down, dense.side)
        )
    kept = kept_units(FLAPPruner, model)
    assert torch.equal(kept, kept_in_rows(scores[None], 6)[0])
    lost = hidden.mean(0)[~kept]
    for name in ("down", "side"):
        found, before = getattr(model, name), getattr(dense, name)
        expected = before.weight[:, ~kept].double() @ lost
        if before.bias is not None:
            expected = expected + before.bias.double()
        torch.testing.assert_close(found.bias.double(), expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(found.weight[:, kept], before.weight[:, kept])


def test_channel_obs_one_unit_after_the_other():
    model = MLP()
    with torch.no_grad():
        hidden = model.hidden(X.float()).double()
    problems = []
    for reader in (model.down, model.side):
        rows = hidden if reader.bias is None else hidden - hidden.mean(0)
        hessian = rows.T @ rows / len(rows)
        hessian += 0.01 * hessian.diagonal().mean() * torch.eye(12, dtype=torch.float64)
        problems.append((reader.weight.detach().double(), hessian))

    def loss_without(lost):
        """What both outputs lose, fitted anew without some units."""
        left = [unit for unit in range(12) if unit not in lost]
        total = 0.0
        for weight, hessian in problems:
            fitted = torch.zeros_like(weight)
            fitted[:, left] = torch.linalg.solve(hessian[left][:, left], hessian[left] @ weight.T).T
            gap = fitted - weight
            total += float(((gap @ hessian) * gap).sum())
        return total

    lost = []
    for _ in range(6):
        lost.append(min(set(range(12)) - set(lost), key=lambda unit: loss_without([*lost, unit])))
    kept = kept_units(ChannelOBSPruner, model, rounds=12, reconstruct=None)
    assert sorted((~kept).nonzero().flatten().tolist()) == sorted(lost)


def test_heads_are_units_of_several_features():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.q, self.k, self.v = (nn.Linear(24, 16) for _ in range(3))
            self.o = nn.Linear(16, 24)

        def heads(self, x):
            q, k, v = (
                f(x).view(*x.shape[:2], 4, 4).transpose(1, 2) for f in (self.q, self.k, self.v)
            )
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            return mixed.transpose(1, 2).flatten(2)

        def forward(self, x):
            return self.o(self.heads(x))

    model, x = Attention(), X.float().view(6, 20, 24)
    with torch.no_grad():
        read = model.heads(x).flatten(0, 1).double()
        each = read.square().mean(0) * model.o.weight.double().square().sum(0)
        scores = each.view(4, 4).sum(1)
    for pruner in (ActivationNormPruner, FLAPPruner, ChannelOBSPruner):
        fresh = Attention()
        _, masks = pruner(
            fresh, [{"op_names": ["q", "k", "v"], "sparsity": 0.5}], calibrate=lambda m: m(x)
        ).compress()
        kept = masks["q"]["bias"].view(4, 4)
        assert (kept.all(1) | ~kept.any(1)).all()
        assert int(kept.all(1).sum()) == 2
        assert torch.equal(masks["v"]["weight"], masks["k"]["weight"])
        if pruner is ActivationNormPruner:
            assert torch.equal(kept.all(1), kept_in_rows(scores[None], 2)[0])


def test_channels_that_are_flattened_and_read_by_a_linear_layer():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 4),
    )
    images = torch.randn(10, 3, 8, 8)
    with torch.no_grad():
        last = model[:4](images).double()
        each = last.flatten(1).square().mean(0) * model[5].weight.double().square().sum(0)
        scores = each.view(6, 16).sum(1)
    pruner = ActivationNormPruner(
        model, [{"op_names": ["0", "2"], "sparsity": 0.5}], calibrate=lambda m: m(images)
    )
    found = pruner.score()["2"]
    # Channels of a grouped convolution that go together share what their unit is worth.
    units = torch.from_numpy(pruner.coupling.producers["2"].classes)
    for unit in units.unique():
        mine = units == unit
        torch.testing.assert_close(found[mine].sum(), scores[mine].sum())


def test_units_that_nobody_is_known_to_read_are_scored_by_their_weights():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.out = nn.Conv2d(2, 8, 3), nn.ConvTranspose2d(8, 3, 3)

        def forward(self, x):
            return self.out(torch.relu(self.conv(x)))

    model, images = Decoder(), torch.randn(4, 2, 8, 8)
    sizes = model.conv.weight.detach().flatten(1).square().sum(1)
    pruner = ActivationNormPruner(
        model, [{"op_names": ["conv"], "sparsity": 0.5}], calibrate=lambda m: m(images)
    )
    _, masks = pruner.compress()
    assert torch.equal(masks["conv"]["bias"].bool(), kept_in_rows(sizes[None], 4)[0])

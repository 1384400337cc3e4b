"""Weights that stay make up for channels and weights that go, for any criterion."""

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import prune_core
from prune_core import BasicPruner, ConfigError, PruneError, PruneWarning
from prune_core.hookspecs import hookimpl
from prune_core.registry import Reference, registered
from prune_toolkit import (
    BatchNormStatistics,
    BiasCompensation,
    ChannelPruner,
    LayerReconstructor,
    LeastSquares,
    NormalSparsityAllocator,
    NormMetricsCalculator,
    StraightMetricsCalculator,
    WeightDataCollector,
)


class Channels(ChannelPruner):
    def collector(self):
        return WeightDataCollector(self, channels=True)

    def calculator(self):
        return NormMetricsCalculator(dim=0, p=1)


class Weights(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)


class MLP(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.a, self.b = nn.Linear(10, 24), nn.Linear(24, 12, bias=bias)
        self.c = nn.Linear(12, 5)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.conv2, self.bn2 = nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6 * 16, 3)

    def forward(self, x):
        x = torch.relu(self.depth(torch.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.relu(self.bn2(self.conv2(x))).flatten(1))


def data(*shape, batches=3):
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(shape[1], shape[1], generator=generator)
    return [
        torch.einsum("nc...,cd->nd...", torch.randn(shape, generator=generator), mixed)
        for _ in range(batches)
    ]


MLP_DATA, IMAGES = data(64, 10), data(16, 2, 6, 6)


def running(batches):
    def calibrate(model):
        for batch in batches:
            model(batch)

    return calibrate


def made(make, seed=0):
    torch.manual_seed(seed)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():  # batch norm that knows what it gets
        for batch in IMAGES * 20 if make is ConvNet else ():
            model(batch)
    return model.eval()


def loss(model, dense, batches):
    with torch.no_grad():
        return float(sum((model(x) - dense(x)).square().mean() for x in batches))


def after(pruner_class, make, rules, batches, **how):
    """What a pruned model loses of its outputs; the model and the pruner."""
    model = made(make)
    dense = copy.deepcopy(model)
    pruner = pruner_class(model, rules, calibrate=running(batches), **how)
    pruner.compress(batches[0] if pruner_class is Channels else None)
    return loss(model, dense, batches), model, pruner


HALF = [{"op_names": ["a", "b"], "sparsity": 0.5}]


@pytest.mark.parametrize("mode", [{}, {"mode": "dependency_aware", "dummy_input": MLP_DATA[0]}])
def test_channels_are_made_up_for(mode):
    plain = after(Channels, MLP, HALF, MLP_DATA, **mode)[0]
    bias = after(Channels, MLP, HALF, MLP_DATA, reconstruct="bias", **mode)[0]
    squares = after(Channels, MLP, HALF, MLP_DATA, reconstruct="least_squares", **mode)[0]
    assert squares < 0.7 * bias < 0.7 * plain


def test_single_weights_are_made_up_for():
    rules = [{"op_types": ["Linear"], "sparsity": 0.6}]
    plain = after(Weights, MLP, rules, MLP_DATA)[0]
    bias = after(Weights, MLP, rules, MLP_DATA, reconstruct=BiasCompensation)[0]
    squares = after(Weights, MLP, rules, MLP_DATA, reconstruct=LeastSquares())[0]
    assert squares < bias < plain


def test_the_fitted_weight_is_that_of_the_formula():
    _, model, pruner = after(
        Channels, MLP, [{"op_names": ["a"], "sparsity": 0.5}], MLP_DATA, reconstruct="least_squares"
    )
    dense = made(MLP)
    kept = pruner.masks["a"]["bias"].bool()
    with torch.no_grad():
        x = torch.relu(dense.a(torch.cat(MLP_DATA))).double()
        y = x @ dense.b.weight.double().T + dense.b.bias
    # The best bias is part of the fit: centred on both sides, with damping towards what was there.
    centred, target = x - x.mean(0), y - y.mean(0)
    gram = centred.T @ centred / len(x)
    strength = 0.01 * gram.diagonal().mean()
    left = gram[kept][:, kept] + strength * torch.eye(int(kept.sum()), dtype=torch.float64)
    right = centred[:, kept].T @ target / len(x) + strength * dense.b.weight.double().T[kept]
    expected = torch.zeros_like(model.b.weight, dtype=torch.float64)
    expected[:, kept] = torch.linalg.solve(left, right).T.detach()
    torch.testing.assert_close(model.b.weight.double(), expected, atol=1e-5, rtol=1e-4)
    bias = y.mean(0) - expected @ x.mean(0)
    torch.testing.assert_close(model.b.bias.double(), bias, atol=1e-5, rtol=1e-4)


def test_convolutions_with_batch_norms_between_them():
    rules = [{"op_names": ["conv1", "conv2"], "sparsity": 0.5}]
    how = {"mode": "dependency_aware", "dummy_input": IMAGES[0]}
    rules[0]["op_names"].append("depth")
    plain = after(Channels, ConvNet, rules, IMAGES, **how)[0]
    squares, model, _ = after(Channels, ConvNet, rules, IMAGES, reconstruct="least_squares", **how)
    assert squares < 0.6 * plain
    assert not isinstance(model.fc, prune_core.masking.PrunerModuleWrapper)  # and yet it was fitted
    assert not torch.equal(model.fc.weight, made(ConvNet).fc.weight)


@pytest.mark.parametrize("reconstruct", ["least_squares", "bias", ["least_squares", "batch_norm"]])
@pytest.mark.parametrize(
    ("make", "names", "batches"),
    [(MLP, ["a", "b"], MLP_DATA), (ConvNet, ["conv1", "depth", "conv2"], IMAGES)],
)
def test_the_small_model_equals_the_reconstructed_one(make, names, batches, reconstruct):
    _, model, pruner = after(
        Channels,
        make,
        [{"op_names": names, "sparsity": 0.5}],
        batches,
        reconstruct=reconstruct,
        mode="dependency_aware",
        dummy_input=batches[0],
    )
    with torch.no_grad():
        masked = model(batches[1])
    masks = pruner.masks
    prune_core.unwrap(model)
    report = prune_core.shrink(model, batches[0], masks)
    assert report.parameters[1] < 0.6 * report.parameters[0]
    with torch.no_grad():
        torch.testing.assert_close(model(batches[1]), masked, atol=1e-4, rtol=1e-4)


def plain(model):
    """What a wrapped model has under the names of a plain one."""
    state = {name.replace(".module", ""): value for name, value in model.state_dict().items()}
    return [(name, value) for name, value in state.items() if not name.endswith("_mask")]


@pytest.mark.parametrize("reconstruct", ["least_squares", "bias", "batch_norm"])
def test_without_applying_the_dense_model_comes_back(reconstruct):
    _, model, _ = after(
        Channels,
        ConvNet,
        [{"op_names": ["conv1", "depth"], "sparsity": 0.5}],
        IMAGES,
        mode="dependency_aware",
        dummy_input=IMAGES[0],
        reconstruct=reconstruct,
    )
    assert any(not torch.equal(made(ConvNet).state_dict()[n], v) for n, v in plain(model))
    prune_core.unwrap(model, apply=False)
    dense = made(ConvNet).state_dict()
    assert dense.keys() == model.state_dict().keys()
    assert all(torch.equal(dense[name], value) for name, value in model.state_dict().items())


def test_a_layer_without_bias_gets_one_where_that_is_what_was_asked_for():
    rules = [{"op_names": ["a"], "sparsity": 0.5}]
    make = lambda: MLP(bias=False)  # noqa: E731
    plain = after(Channels, make, rules, MLP_DATA)[0]
    bias, model, pruner = after(Channels, make, rules, MLP_DATA, reconstruct="bias")
    assert bias < plain
    dense, kept = made(make), pruner.masks["a"]["bias"].bool()
    with torch.no_grad():
        x = torch.relu(dense.a(torch.cat(MLP_DATA)))
        expected = dense.b.weight[:, ~kept] @ x.mean(0)[~kept]
    torch.testing.assert_close(model.b.bias, expected, atol=1e-5, rtol=1e-4)
    squares = after(Channels, make, rules, MLP_DATA, reconstruct="least_squares")
    assert squares[1].b.bias is None
    assert squares[0] < plain
    both = after(Channels, make, rules, MLP_DATA, reconstruct=["least_squares", "bias"])
    assert both[1].b.bias is not None
    assert both[0] < bias


def test_a_bias_that_is_new_can_be_pruned_later():
    model = made(lambda: MLP(bias=False))
    pruner = Channels(
        model,
        [{"op_names": ["a", "b"], "sparsity": 0.5}],
        calibrate=running(MLP_DATA),
        reconstruct="bias",
    )
    pruner.compress()
    pruner.get_modules_wrapper()["b"].config["sparsity"] = 0.75
    pruner.compress()
    mask = pruner.masks["b"]["bias"]
    assert int(mask.sum()) == 3
    with torch.no_grad():
        assert not model.b(torch.randn(2, 24))[:, ~mask.bool()].any()


def test_batch_norms_measure_the_pruned_model():
    rules = [{"op_names": ["conv1"], "sparsity": 0.5}]
    _, model, _ = after(Channels, ConvNet, rules, IMAGES, reconstruct="batch_norm")
    again = after(Channels, ConvNet, rules, IMAGES)[1]
    for norm in (again.bn1, again.bn2):
        norm.train()
    seen = []
    handle = again.bn1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        for batch in IMAGES:
            again(batch)
    handle.remove()
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(model.bn1.running_mean, means)
    torch.testing.assert_close(model.bn1.running_var, variances)
    assert not model.bn1.training
    assert model.bn1.momentum == 0.1


def test_a_user_who_says_eval_does_not_keep_batch_norms_from_measuring():
    def calibrate(model):
        model.eval()
        for batch in IMAGES:
            model(batch)

    rules = [{"op_names": ["conv1"], "sparsity": 0.5}]
    model = made(ConvNet)
    Channels(model, rules, calibrate=calibrate, reconstruct="batch_norm").compress()
    said = after(Channels, ConvNet, rules, IMAGES, reconstruct="batch_norm")[1]
    torch.testing.assert_close(model.bn1.running_mean, said.bn1.running_mean)


def test_batch_norms_that_data_do_not_reach_are_refused():
    model = made(ConvNet)
    model.spare = nn.BatchNorm2d(2)
    pruner = Channels(
        model,
        [{"op_names": ["conv1"], "sparsity": 0.5}],
        calibrate=running(IMAGES),
        reconstruct=BatchNormStatistics(),
    )
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PruneError, match=r"reached 2 of 3 batch norms.*such as '"):
        pruner.compress()
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_one_weight_of_two_layers_is_left_alone():
    class Tied(MLP):
        def __init__(self):
            super().__init__()
            self.again = nn.Linear(24, 12)
            self.again.weight = self.b.weight

        def forward(self, x):
            x = torch.relu(self.a(x))
            return self.c(torch.relu(self.b(x)) + self.again(x))

    model = made(Tied)
    before = model.b.weight.detach().clone()
    pruner = Channels(
        model,
        [{"op_names": ["a"], "sparsity": 0.5}],
        calibrate=running(MLP_DATA),
        reconstruct="least_squares",
    )
    with pytest.warns(PruneWarning, match="nothing to reconstruct"):
        pruner.compress()
    assert torch.equal(model.b.weight, before)


def test_frozen_and_half_precision_weights_are_fitted_too():
    model = made(MLP).bfloat16().requires_grad_(False)
    batches = [x.bfloat16() for x in MLP_DATA]
    dense = copy.deepcopy(model)
    pruner = Channels(model, HALF, calibrate=running(batches), reconstruct="least_squares")
    pruner.compress()
    plain = copy.deepcopy(dense)
    Channels(plain, HALF).compress()
    assert model.b.weight.dtype == torch.bfloat16
    assert not model.b.weight.requires_grad
    assert loss(model, dense, batches) < 0.5 * loss(plain, dense, batches)


def test_padding_does_not_count():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x, attention_mask=None):
            return self.down(torch.relu(self.up(x)))

    torch.manual_seed(0)
    x, mask = torch.randn(4, 5, 6), torch.tensor([[1, 1, 1, 0, 0]] * 2 + [[1, 1, 1, 1, 1]] * 2)
    garbage = torch.where(mask[..., None].bool(), x, 1000 * torch.randn(4, 5, 6))

    def fitted(inputs):
        model = made(Tokens)
        pruner = Channels(
            model,
            [{"op_names": ["up"], "sparsity": 0.5}],
            calibrate=lambda model: model(inputs, attention_mask=mask),
            reconstruct="least_squares",
        )
        pruner.compress()
        return model.down.weight.detach()

    torch.testing.assert_close(fitted(x), fitted(garbage))


# --- what goes wrong --------------------------------------------------------------------------


def broken(pruner, model, error, match):
    before, wrapped = copy.deepcopy(model.state_dict()), [n for n, _ in model.named_modules()]
    with pytest.raises(error, match=match):
        pruner.compress(MLP_DATA[0])
    assert [name for name, _ in model.named_modules()] == wrapped
    now = model.state_dict()
    assert now.keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in now.items())
    assert all(bool(m.all()) for tensors in pruner.masks.values() for m in tensors.values())


def test_data_that_hold_nan_leave_the_model_as_it_was():
    class Nan(MLP):
        """Fine up to its second layer."""

        def forward(self, x):
            x = torch.relu(self.b(torch.relu(self.a(x))))
            return self.c(x * (torch.nan if self.broken else 1))

        broken = False

    model = made(Nan)
    pruner = Channels(model, HALF, calibrate=running(MLP_DATA), reconstruct="least_squares")
    model.broken = True
    broken(pruner, model, PruneError, "into 'c' holds NaN")


def test_a_calibration_that_fails_leaves_the_model_as_it_was():
    def calibrate(model):
        model(MLP_DATA[0])
        raise OSError("no more data")

    model = made(MLP)
    pruner = Channels(model, HALF, calibrate=calibrate, reconstruct="least_squares")
    broken(pruner, model, OSError, "no more data")


def test_reconstruction_needs_data():
    with pytest.raises(ConfigError, match=r"LeastSquares looks at what layers compute.*calibrate="):
        Channels(made(MLP), HALF, reconstruct="least_squares")
    own = LeastSquares(calibrate=running(MLP_DATA))
    Channels(made(MLP), HALF, reconstruct=own).compress()
    with pytest.raises(ConfigError, match="calibrate is 5"):
        LeastSquares(calibrate=5)
    with pytest.raises(ConfigError, match="damping is 0"):
        LeastSquares(damping=0)


def test_names_are_looked_up_among_the_registered():
    with pytest.raises(prune_core.UnknownNameError, match="Did you mean 'least_squares'"):
        Channels(made(MLP), HALF, calibrate=running(MLP_DATA), reconstruct="least_square")
    with pytest.raises(ConfigError, match="reconstruct has .*ReLU"):
        Channels(made(MLP), HALF, calibrate=running(MLP_DATA), reconstruct=nn.ReLU)


class Growing(LayerReconstructor):
    """A stranger's: lets what is left grow by a tenth."""

    def fit(self, layer):
        return 1.1 * layer.left, None


def test_a_strangers_reconstructor_is_had_by_name(monkeypatch):
    class Hooks:
        @hookimpl
        def prune_register_parts(self):
            return {"reconstructor": {"growing": Reference("acme_growing:Growing")}}

    monkeypatch.setitem(sys.modules, "acme_growing", SimpleNamespace(Growing=Growing))
    rules = [{"op_names": ["a"], "sparsity": 0.5}]
    with registered(Hooks(), "acme"):
        _, model, pruner = after(Channels, MLP, rules, MLP_DATA, reconstruct="growing")
    kept = pruner.masks["a"]["bias"].bool()
    grown = 1.1 * made(MLP).b.weight[:, kept]
    torch.testing.assert_close(model.b.weight[:, kept], grown)

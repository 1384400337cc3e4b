"""What cannot be right is told by the name of the layer, and the model stays as it was."""

import copy

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ConfigError, PruneError, PruneWarning
from prune_oneshot import (
    ActivationNormPruner,
    ALPSPruner,
    ChannelOBSPruner,
    FLAPPruner,
    RIAPruner,
    SparseGPTPruner,
    WandaPruner,
)
from prune_toolkit.calibration import watch

WEIGHTS = (WandaPruner, RIAPruner, SparseGPTPruner, ALPSPruner)
CHANNELS = (ActivationNormPruner, FLAPPruner, ChannelOBSPruner)
EVERY = [*WEIGHTS, *CHANNELS]
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(50, 8, generator=GENERATOR) @ torch.randn(8, 8, generator=GENERATOR)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.spare = nn.Linear(8, 12), nn.Linear(12, 4), nn.Linear(8, 4)
        self.factor, self.uses_spare = 1.0, False

    def forward(self, x):
        y = self.down(torch.relu(self.up(x)) * self.factor)
        return y + self.spare(x) if self.uses_spare else y


def made(pruner, names=("up", "down"), model=None, data=X, **how):
    model = model or Model()
    if pruner in CHANNELS:
        names = [name for name in names if name != "down"]
    rules = [{"op_names": list(names), "sparsity": 0.5}]
    return model, pruner(model, rules, calibrate=lambda m: m(data), **how)


def refused(model, pruner, match):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PruneError, match=match):
        pruner.compress()
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert all(bool(m.all()) for tensors in pruner.masks.values() for m in tensors.values())


@pytest.mark.parametrize("pruner", EVERY)
def test_no_data_at_all(pruner):
    with pytest.raises(ConfigError, match=rf"{pruner.__name__} scores by.*Give calibrate="):
        pruner(Model(), [{"op_names": ["up"], "sparsity": 0.5}])


@pytest.mark.parametrize("pruner", EVERY)
def test_a_calibration_that_runs_nothing(pruner):
    rules = [{"op_names": ["up"], "sparsity": 0.5}]
    with pytest.raises(PruneError, match="never ran the model"):
        pruner(Model(), rules, calibrate=lambda m: None).compress()


@pytest.mark.parametrize("pruner", WEIGHTS)
def test_data_that_never_reach_a_layer(pruner):
    refused(*made(pruner, ("up", "spare")), r"'spare'.*never reach.*'exclude': True")


@pytest.mark.parametrize("pruner", CHANNELS)
def test_data_that_never_reach_what_is_pruned_by_channels(pruner):
    _, made_pruner = made(pruner, ("up", "spare"))
    with pytest.warns(PruneWarning, match=r"'spare' stays dense: it was not called"):
        _, masks = made_pruner.compress()
    assert bool(masks["spare"]["weight"].all())
    assert int(masks["up"]["weight"].sum()) == 48


@pytest.mark.parametrize("pruner", [ActivationNormPruner, FLAPPruner])
def test_channels_that_only_a_layer_without_data_reads(pruner):
    class TwoWays(Model):
        def forward(self, x, whole=True):
            hidden = torch.relu(self.up(x))
            return self.down(hidden) if whole else hidden

    model = TwoWays()
    sizes = model.up.weight.detach().square().sum(1)
    rules = [{"op_names": ["up"], "sparsity": 0.5}]
    made_pruner = pruner(
        model, rules, dummy_input=X, calibrate=lambda m: m(X, whole=False), reconstruct=None
    )
    with pytest.warns(PruneWarning, match="never reach 'down', which reads the channels of 'up'"):
        _, masks = made_pruner.compress()
    kept = masks["up"]["bias"].nonzero().flatten()
    assert set(kept.tolist()) == set(sizes.topk(6).indices.tolist())


@pytest.mark.parametrize("algorithm", ["wanda", "sparsegpt", "alps", "flap", "channel_obs"])
def test_no_batches_at_all(algorithm):
    model = Model()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PruneError, match="never ran the model"):
        prune_core.prune(model, algorithm, sparsity=0.5, example_inputs=X, data=[])
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


@pytest.mark.parametrize("pruner", EVERY)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_no_numbers(pruner, value):
    model, made_pruner = made(pruner)
    model.factor = value
    refused(model, made_pruner, "into 'down' holds NaN or infinity")


@pytest.mark.parametrize("pruner", EVERY)
def test_inputs_that_are_always_zero_go_first_and_do_no_harm(pruner):
    data = X.clone()
    data[:, [1, 5]] = 0
    model, made_pruner = (
        made(pruner, data=data, sequential=False) if pruner in WEIGHTS else made(pruner, data=data)
    )
    _, masks = made_pruner.compress()
    assert all(p.isfinite().all() for p in model.parameters())
    if pruner in WEIGHTS:
        assert not masks["up"]["weight"][:, [1, 5]].any()


@pytest.mark.parametrize("pruner", EVERY)
def test_data_that_are_nothing_but_zeros(pruner):
    model, made_pruner = made(pruner, data=torch.zeros(3, 8))
    _, masks = made_pruner.compress()
    assert int(masks["up"]["weight"].sum()) == 48
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("pruner", EVERY)
def test_fewer_rows_than_features_give_a_singular_matrix(pruner):
    model, made_pruner = made(pruner, data=X[:2])
    _, masks = made_pruner.compress()
    assert int(masks["up"]["weight"].sum()) == 48
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("pruner", EVERY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(pruner, dtype):
    _, exact = made(pruner)[1].compress()
    model, made_pruner = made(pruner, model=Model().to(dtype), data=X.to(dtype))
    _, masks = made_pruner.compress()
    alike = (exact["up"]["weight"] == masks["up"]["weight"]).float().mean()
    assert alike > 0.8
    assert model.up.weight.dtype == dtype
    assert all(p.isfinite().all() for p in model.parameters())


def test_squares_beyond_half_precision_are_no_problem():
    # 2000² is beyond float16, and so are sums of many such.
    _, masks = made(WandaPruner, ("up",), Model().half(), (500 * X).half())[1].compress()
    assert int(masks["up"]["weight"].sum()) == 48


def overflowing():
    """A layer whose two inputs are equal, with weights that float16 can hold, but not their sum."""
    model = Model()
    with torch.no_grad():
        model.up.weight[:] = 40000.0
        model.up.weight[:, 4:] = 39000.0
    data = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).repeat(1, 2) / 1e4
    return model.half(), data.half()


@pytest.mark.parametrize("pruner", [SparseGPTPruner, ALPSPruner])
def test_fitted_weights_beyond_half_precision(pruner):
    model, data = overflowing()
    refused(*made(pruner, ("up",), model, data), r"'up'.*does not fit into torch.float16.*float32")


def test_least_squares_beyond_half_precision():
    model, data = overflowing()
    how = {"reconstruct": "least_squares"}
    refused(
        *made(WandaPruner, ("up",), model, data, **how), "'up'.*does not fit into torch.float16"
    )


@pytest.mark.parametrize("pruner", [SparseGPTPruner, ChannelOBSPruner])
def test_products_that_cannot_be_factored_name_the_layer(pruner, monkeypatch):
    # Rounding as bad as this cannot be had from real inputs on a CPU.
    add = watch.add_products

    def negative(products, *given):
        add(products, *given)
        products.neg_()

    monkeypatch.setattr(watch, "add_products", negative)
    layer = "up" if pruner is SparseGPTPruner else "down"
    refused(*made(pruner), rf"'{layer}' cannot be fitted: .*larger damping")


def test_products_that_no_memory_holds(monkeypatch):
    monkeypatch.setattr(watch, "physical_memory", lambda: 8 * 8 * 8 - 1)
    refused(*made(SparseGPTPruner, ("up",)), r"'up' has 8 inputs, and their products need .* GB")


def test_a_solver_leaves_weights_of_one_output_alone_until_they_are_put():
    model = nn.Sequential(nn.Linear(8, 1))
    pruner = SparseGPTPruner(
        model, [{"op_names": ["0"], "sparsity": 0.5}], calibrate=lambda m: m(X)
    )
    before = model[0].weight.detach().clone()
    model, _ = pruner.compress()
    assert int((model[0].weight != 0).sum()) == 4
    prune_core.unwrap(model, apply=False)
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("pruner", [WandaPruner, SparseGPTPruner])
def test_patterns_that_do_not_fit(pruner):
    with pytest.raises(ConfigError, match="n is 2 and m is None"):
        made(pruner, n=2)
    with pytest.raises(ConfigError, match=r"'up' is to lose 0.5.*prunes 0.75"):
        made(pruner, n=1, m=4)
    with pytest.raises(ConfigError, match="0 < n < m"):
        made(pruner, n=4, m=4)
    with pytest.raises(ConfigError, match=r"'up'.*cannot be cut into groups of 6"):
        made(pruner, n=3, m=6)


@pytest.mark.parametrize(
    ("pruner", "how", "match"),
    [
        (SparseGPTPruner, {"blocksize": 0}, "blocksize is 0"),
        (SparseGPTPruner, {"damping": 0}, "damping is 0"),
        (ALPSPruner, {"iterations": 0}, "iterations is 0"),
        (RIAPruner, {"power": -1}, "power is -1"),
        (ChannelOBSPruner, {"rounds": 0}, "rounds is 0"),
        (ChannelOBSPruner, {"damping": float("nan")}, "damping is nan"),
        (WandaPruner, {"mode": "dependency_aware"}, "the modes of WandaPruner are 'row'"),
        (FLAPPruner, {"mode": "normal"}, "the modes of FLAPPruner are 'dependency_aware'"),
    ],
)
def test_settings_that_make_no_sense(pruner, how, match):
    with pytest.raises(ConfigError, match=match):
        made(pruner, ("up",), **how)


def test_layers_of_which_nothing_is_known_are_refused():
    model = nn.Sequential(nn.LSTM(4, 4))
    with pytest.raises(ConfigError, match="WandaPruner prunes Linear"):
        WandaPruner(model, [{"op_names": ["0"], "sparsity": 0.5}], calibrate=lambda m: m(X))
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    pruner = WandaPruner(
        attention,
        [{"op_types": ["default"], "sparsity": 0.5}],
        calibrate=lambda m: m(X.view(5, 10, 8)),
    )
    with pytest.raises(PruneError, match=r"'self_attn.out_proj'.*it is not called"):
        pruner.compress()

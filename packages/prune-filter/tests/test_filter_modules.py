"""The criteria on every kind of module, number type and state of a weight."""

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneError
from prune_filter import (
    ActivationAPoZRankPruner,
    FPGMPruner,
    L1NormPruner,
    L2NormPruner,
    LevelPruner,
    NMPruner,
    SNIPPruner,
    TaylorFOWeightPruner,
)

BY_WEIGHT = [L1NormPruner, L2NormPruner, FPGMPruner]


class Conv1D(nn.Module):
    """A linear layer that stores its weight input first, as in GPT-2 of transformers."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


# module, an input for it, and the axis of its output channels
MODULES = {
    "Conv1d": (nn.Conv1d(4, 8, 3), torch.randn(2, 4, 9), 0),
    "Conv2d": (nn.Conv2d(4, 8, 3), torch.randn(2, 4, 9, 9), 0),
    "Conv3d": (nn.Conv3d(4, 8, 3), torch.randn(2, 4, 5, 5, 5), 0),
    "grouped Conv2d": (nn.Conv2d(4, 8, 3, groups=2), torch.randn(2, 4, 9, 9), 0),
    "depthwise Conv2d": (nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 9, 9), 0),
    "ConvTranspose1d": (nn.ConvTranspose1d(4, 8, 3), torch.randn(2, 4, 9), 1),
    "ConvTranspose2d": (nn.ConvTranspose2d(4, 8, 3), torch.randn(2, 4, 9, 9), 1),
    "ConvTranspose3d": (nn.ConvTranspose3d(4, 8, 3), torch.randn(2, 4, 5, 5, 5), 1),
    "Linear": (nn.Linear(4, 8), torch.randn(2, 5, 4), 0),
    "Conv1D": (Conv1D(8, 4), torch.randn(2, 5, 4), 1),
}
KINDS = pytest.mark.parametrize("kind", MODULES)


def prepared(kind):
    module, inputs, axis = MODULES[kind]
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
        parameter.grad = None
    rules = [{"sparsity": 0.5, "op_types": [kind.split()[-1]]}]
    return nn.Sequential(module), inputs, axis, rules


def assert_four_whole_channels(masks, axis):
    weight = masks["0"]["weight"].transpose(0, axis).flatten(1)
    assert torch.equal(weight.any(1), weight.all(1))
    assert int(weight.any(1).sum()) == 4
    assert torch.equal(masks["0"]["bias"], weight.any(1))


@KINDS
@pytest.mark.parametrize("pruner", BY_WEIGHT)
def test_channels_by_weight(pruner, kind):
    model, inputs, axis, rules = prepared(kind)
    model, masks = pruner(model, rules).compress()
    assert_four_whole_channels(masks, axis)
    gone = ~masks["0"]["bias"]
    channels = 1 if "onv" in kind and kind != "Conv1D" else -1
    assert not model(inputs).movedim(channels, 0)[gone].any()


@KINDS
def test_channels_by_activation(kind):
    model, inputs, axis, rules = prepared(kind)
    channels = 1 if "onv" in kind and kind != "Conv1D" else -1
    alive = (model(inputs) > 0).double().movedim(channels, 0).flatten(1).mean(1)
    pruner = ActivationAPoZRankPruner(model, rules, calibrate=lambda model: model(inputs))
    _, masks = pruner.compress()
    assert_four_whole_channels(masks, axis)
    kept = masks["0"]["bias"]
    assert alive[kept].min() >= alive[~kept].max()


@KINDS
def test_channels_by_gradient(kind):
    model, inputs, axis, rules = prepared(kind)
    loss = lambda model: model(inputs).pow(3).sum()  # noqa: E731
    [gradient] = torch.autograd.grad(loss(model), [model[0].weight])
    score = (gradient * model[0].weight).detach().square().transpose(0, axis).flatten(1).sum(1)
    pruner = TaylorFOWeightPruner(model, rules, calibrate=lambda model: loss(model).backward())
    _, masks = pruner.compress()
    assert_four_whole_channels(masks, axis)
    kept = masks["0"]["bias"]
    assert score[kept].min() >= score[~kept].max()


@KINDS
def test_n_of_m_along_the_input(kind):
    model, _, axis, rules = prepared(kind)
    if model[0].weight.shape[1 - axis] % 4:
        with pytest.raises(ConfigError, match=r"cannot be cut into groups of 4. Exclude it"):
            NMPruner(model, rules).compress()
        return
    _, masks = NMPruner(model, rules).compress()
    groups = masks["0"]["weight"].movedim(1 - axis, -1).unflatten(-1, (-1, 4))
    assert (groups.sum(-1) == 2).all()


@pytest.mark.parametrize(
    "module",
    [nn.Embedding(6, 4), nn.EmbeddingBag(6, 4), nn.Bilinear(2, 3, 4), nn.MultiheadAttention(4, 2)],
    ids=lambda module: type(module).__name__,
)
def test_single_weights_of_anything_that_has_some(module):
    rules = [{"sparsity": 0.5, "op_types": ["default"]}]
    _, masks = LevelPruner(nn.ModuleDict({"it": module}), rules).compress()
    name, mask = next(iter(masks["it"].items()))
    found = module.get_parameter(name).detach().abs()
    assert int(mask.sum()) == mask.numel() // 2
    assert found[mask].min() >= found[~mask].max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("pruner", [*BY_WEIGHT, LevelPruner])
def test_number_types(pruner, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16)).to(dtype)
    exact = nn.Sequential(nn.Linear(64, 16)).double()
    exact.load_state_dict(model.state_dict())
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    _, masks = pruner(model, rules).compress()
    _, expected = pruner(exact, rules).compress()
    assert torch.equal(masks["0"]["weight"], expected["0"]["weight"])
    assert model[0].weight.dtype == dtype


def test_a_sum_beyond_half_precision():
    model = nn.Sequential(nn.Linear(64, 2)).half()
    with torch.no_grad():
        model[0].weight.fill_(6e4)
        model[0].weight[0] = 5e4
    _, masks = L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["Linear"]}]).compress()
    assert masks["0"]["bias"].tolist() == [False, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("pruner", [*BY_WEIGHT, LevelPruner, NMPruner])
def test_weights_that_are_no_numbers_are_refused_by_name(pruner, value):
    model = nn.ModuleDict({"good": nn.Linear(4, 4), "bad": nn.Linear(4, 4)})
    with torch.no_grad():
        model["bad"].weight[1, 2] = value
    instance = pruner(model, [{"sparsity": 0.5, "op_types": ["Linear"]}])
    with pytest.raises(PruneError, match=r"'bad' contain (NaN|infinite values)"):
        instance.compress()
    assert all(wrapper.masked_count("weight") == 0 for wrapper in instance._wrappers.values())


@pytest.mark.parametrize("pruner", [*BY_WEIGHT, LevelPruner])
def test_frozen_weights_stay_frozen(pruner):
    model = nn.Sequential(nn.Linear(4, 4)).requires_grad_(False)
    instance = pruner(model, [{"sparsity": 0.5, "op_types": ["Linear"]}])
    instance.compress()
    instance.unwrap()
    assert not model[0].weight.requires_grad
    assert model[0].weight.count_nonzero() == 8


@pytest.mark.parametrize("pruner", [TaylorFOWeightPruner, SNIPPruner])
def test_gradients_of_frozen_weights_are_refused_by_name(pruner):
    model = nn.ModuleDict({"free": nn.Linear(4, 4), "frozen": nn.Linear(4, 4)})
    model["frozen"].requires_grad_(False)
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    instance = pruner(model, rules, calibrate=lambda model: None)
    with pytest.raises(PruneError, match=r"frozen\.weight is frozen"):
        instance.compress()


def test_channels_of_a_grouped_transposed_convolution_are_refused_by_name():
    model = nn.Sequential(nn.ConvTranspose2d(4, 8, 3, groups=2))
    with pytest.raises(ConfigError, match="'0' is a transposed convolution with 2 groups"):
        L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["ConvTranspose2d"]}])


@pytest.mark.parametrize("pruner", BY_WEIGHT)
def test_what_has_no_output_channels_is_refused(pruner):
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Linear(4, 4))
    with pytest.raises(ConfigError, match="'op_names' selects '0', a BatchNorm2d"):
        pruner(model, [{"sparsity": 0.5, "op_names": ["0"]}])


@pytest.mark.parametrize("pruner", BY_WEIGHT)
def test_what_is_masked_stays_masked(pruner):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 10))
    instance = pruner(model, [{"sparsity": 0.3, "op_types": ["Linear"]}])
    _, first = instance.compress()
    with torch.no_grad():
        model[0].module.weight.copy_(model[0].module.weight.flip(0))
    _, second = instance.compress()
    assert torch.equal(first["0"]["bias"], second["0"]["bias"])
    for wrapper in instance.get_modules_wrapper().values():
        wrapper.config["sparsity"] = 0.6
    _, third = instance.compress()
    assert int(third["0"]["bias"].sum()) == 4
    assert not (third["0"]["bias"] & ~first["0"]["bias"]).any()

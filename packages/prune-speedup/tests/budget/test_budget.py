"""Pruning to a budget: what is counted is what the small model really is."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import prune_core
from prune_core import ConfigError, PruneWarning, shrink
from prune_core.masking import PrunerModuleWrapper
from prune_speedup.engine.plan import make_plan
from prune_speedup.torch.cost import cost_of

pytestmark = pytest.mark.usefixtures("toys")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.conv = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.last = nn.Conv2d(32, 48, 1)
        self.head = nn.Linear(48, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.last(x + self.conv(x)).relu().mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def flops(model, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops()


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_dense_model_costs_what_torch_counts(model, x):
    cost = cost_of(make_plan(prune_core.units(model, x).labelling, ()))
    assert cost.flops == flops(model, x)
    assert cost.parameters == parameters(model)


def test_attention_is_counted(x):
    attention = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    tokens = torch.randn(2, 5, 16)
    cost = cost_of(make_plan(prune_core.units(attention, tokens).labelling, ()))
    attention.train()  # in eval mode torch runs it as one operator, and counts nothing
    assert cost.flops == flops(attention, tokens)
    products = 2 * (2 * 2 * 5 * 5 * 16)  # q·k and weights·v, two sentences, two per multiply-add
    linear = 2 * 10 * (16 * 48 + 16 * 16 + 2 * 16 * 32)
    assert cost.flops == linear + products


@pytest.mark.parametrize(
    "target", [{"flops": 0.5}, {"parameters": 0.4}, {"flops": 0.7, "parameters": 0.4}]
)
@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("ranked", [{}, {"mode": "global"}], ids=["each", "together"])
def test_the_small_model_is_within_its_budget_and_not_far_below(model, x, target, round_to, ranked):
    dense = copy.deepcopy(model)
    asked = {"target": target, "example_inputs": x, "round_to": round_to}
    _, masks = prune_core.prune(model, "toy_l1", **asked, **ranked)
    masked = model(x)
    prune_core.unwrap(model)
    shrink(model, x, masks)
    torch.testing.assert_close(model(x), masked, rtol=1e-4, atol=1e-5)
    left = {
        "flops": flops(model, x) / flops(dense, x),
        "parameters": parameters(model) / parameters(dense),
    }
    slack = min(target[name] - left[name] for name in target)
    assert 0 <= slack < (0.1 if round_to == 1 else 0.3)
    assert model.last.out_channels % round_to == 0
    assert model.stem.out_channels % round_to == 0


def test_a_measured_latency():
    # Wide, so that channels make more of a difference than what else the machine does.
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 1)]
    model, big = nn.Sequential(*layers).eval(), torch.randn(4, 3, 48, 48)
    _, masks = prune_core.prune(model, "toy_l1", target={"latency": 0.8}, example_inputs=big)
    prune_core.unwrap(model)
    report = shrink(model, big, masks)
    before, after = report.parameters
    assert after < before


def test_a_budget_that_leaves_layers_alike(x):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(c, 16, 3) for c in (3, 16, 16)), nn.Conv2d(16, 2, 1)).eval()
    rules = {"target": {"flops": 0.5}, "example_inputs": x}
    _, masks = prune_core.prune(model, "toy_l1", **rules, uniform=True)
    assert len({int(masks[name]["bias"].sum()) for name in "012"}) == 1
    prune_core.unwrap(model)
    before, after = shrink(model, x, masks).flops
    assert after <= before / 2
    assert model[0].out_channels == model[1].out_channels == model[2].out_channels < 16


def test_the_report_counts_what_torch_counts(model, x):
    dense = flops(model, x)
    _, masks = prune_core.prune(model, "toy_l1", sparsity=0.5, example_inputs=x)
    prune_core.unwrap(model)
    report = shrink(model, x, masks)
    assert report.flops == (dense, flops(model, x))


def test_what_cannot_be_reached_is_refused_and_the_model_left_alone(model, x):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"target\['flops'\] is 0.01, and with 99%"):
        prune_core.prune(
            model, "toy_l1", target={"flops": 0.01}, example_inputs=x, targets=["last"]
        )
    assert not any(isinstance(module, PrunerModuleWrapper) for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Insists(nn.Module):
    """A forward that takes sixteen channels and no fewer."""

    def forward(self, x):
        if x.shape[1] != 16:
            raise ValueError("16 channels, please")
        return x


@pytest.mark.parametrize("budget", ["parameters", "flops"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_budget_that_shrink_would_miss_is_refused_before_anything_is_masked(
    x, budget, everywhere
):
    layers = [nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 4, 1)]
    layers[1:1] = [Insists()]
    if everywhere:
        del layers[3:4]
    model = nn.Sequential(*layers).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    says = (
        "could not remove what would be masked: The forward of 1 .* 16 channels, please"
        if everywhere
        else rf"target\['{budget}'\] is 0.4, and shrink\(\) would leave 0\.[5-9].*insists on its"
    )
    with pytest.raises(ConfigError, match=says):
        prune_core.prune(model, "toy_l1", target={budget: 0.4}, example_inputs=x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(isinstance(module, PrunerModuleWrapper) for module in model.modules())


class Embeds(nn.Module):
    """Returns what it has inside, of more than two pictures: that has to keep its channels."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 1)
        )
        self.head = nn.Linear(8 * 8 * 8, 2)

    def forward(self, x):
        inside = self.body(x)
        return inside if len(x) > 2 else self.head(inside.flatten(1))


def test_a_budget_is_met_where_another_way_of_running_keeps_channels():
    torch.manual_seed(0)
    model, x = Embeds().eval(), torch.rand(2, 3, 12, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruneWarning)  # that the last convolution stays
        model, masks = prune_core.prune(
            model, "toy_l1", target={"parameters": 0.5}, example_inputs=x
        )
        small = prune_core.unwrap(model)
        report = shrink(small, x, masks)
    assert small.body[4].out_channels == 8
    assert report.parameters[1] <= 0.5 * report.parameters[0]


def test_layers_are_ranked_together_by_scores_relative_to_their_group(x):
    """Relative to their means, `0` scores 1/3, 2/3, 1, 2, and `2` scores 4/5, 14/15, 1, 19/15."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.ReLU()),
        nn.Conv2d(4, 2, 1, bias=False),
    )
    for layer, scores in ((model[0], [3.0, 1, 6, 2]), (model[2], [14.0, 12, 19, 15])):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(scores)[:, None, None, None] / layer.weight[0].numel())
    # A channel of `0` has 3 weights and one of `2` has 4: 28 in all.
    asked = {"example_inputs": x, "mode": "global", "exclude": "4"}
    for sparsity, left in (
        (3 / 28, ([3, 6, 2], [14, 12, 19, 15])),
        (6 / 28, ([3, 6], [14, 12, 19, 15])),
        (9 / 28, ([3, 6], [14, 12, 19, 15])),
        (10 / 28, ([3, 6], [14, 19, 15])),
        (14 / 28, ([3, 6], [19, 15])),
        (0.99, ([6], [19])),
    ):
        pruned = copy.deepcopy(model)
        _, masks = prune_core.prune(pruned, "toy_l1", sparsity=sparsity, **asked)
        kept = [
            [
                round(float(row.detach().sum()))
                for row, keep in zip(layer.weight, mask, strict=True)
                if keep
            ]
            for layer, mask in (
                (model[0], masks["0"]["weight"].flatten(1).any(1)),
                (model[2], masks["2"]["weight"].flatten(1).any(1)),
            )
        ]
        assert kept == [*left], sparsity


def test_channels_that_are_added_are_ranked_as_one(x):
    """Both layers of the sum are weak in channel 1, which the last layer outweighs alone."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(3, 2, 1, bias=False)
            self.last, self.head = nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 1, 1)
            for layer, scores in ((self.a, [9.0, 1]), (self.b, [1.0, 2]), (self.last, [1.0, 3])):
                with torch.no_grad():
                    size = layer.weight[0].numel()
                    layer.weight.copy_(torch.tensor(scores)[:, None, None, None] / size)

        def forward(self, x):
            return self.head(self.last(self.a(x) + self.b(x)).relu())

    # The sum scores [10, 3], relative [1.54, 0.46]; `last` [1, 3], relative [0.5, 1.5].
    _, masks = prune_core.prune(
        Sum(), "toy_l1", sparsity=6 / 16, example_inputs=x, mode="global", exclude="head"
    )
    kept = {name: masks[name]["weight"].flatten(1).any(1).tolist() for name in ("a", "b", "last")}
    assert kept == {"a": [True, False], "b": [True, False], "last": [True, True]}


def test_a_cap_on_what_one_layer_may_lose(x):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 10, 1), nn.ReLU(), nn.Conv2d(10, 10, 1), nn.Conv2d(10, 2, 1))
    with torch.no_grad():
        model[0].weight[:8] *= 1e-3
    rules = [{"op_names": ["0", "2"], "total_sparsity": 0.5, "max_sparsity_per_layer": 0.6}]
    pruner = prune_core.get_pruner("toy_l1")(model, rules, "dependency_aware", x)
    pruner.sparsity_allocator.across = True
    _, masks = pruner.compress()
    assert masks["0"]["bias"].sum() == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "Say how much to prune, once"),
        ({"sparsity": 0.5, "target": {"flops": 0.5}}, "Say how much to prune, once"),
        ({"target": {"flop": 0.5}}, "Did you mean 'flops'"),
        ({"target": {"flops": 1}}, r"target\['flops'\] is 1; it must be what may be left"),
        ({"target": {"flops": True}}, "is True"),
        ({"target": 0.5}, "target is 0.5; it must be a dict"),
        ({"target": {}}, "must be a dict"),
        ({"target": {"flops": 0.5}, "example_inputs": None}, "target needs example_inputs"),
        ({"sparsity": 0.5, "round_to": 8, "example_inputs": None}, "round_to needs example_inp"),
        ({"sparsity": 0.5, "round_to": 0}, "round_to is 0"),
        ({"algorithm": "toy_level", "target": {"flops": 0.5}}, "masks single weights"),
        ({"algorithm": "toy_mute", "target": {"flops": 0.5}}, "declare granularity = 'channels'"),
        ({"target": {"flops": 0.5}, "mode": "normal"}, "mode is 'normal', which masks each layer"),
    ],
)
def test_a_budget_that_is_none_is_refused(model, x, arguments, says):
    arguments = {"algorithm": "toy_l1", "example_inputs": x, **arguments}
    with pytest.raises(ConfigError, match=says):
        prune_core.prune(model, **arguments)
    assert isinstance(model.stem, nn.Conv2d)


class Residual(nn.Module):
    """A stream that a layer normalisation runs over, and a block beside it that it does not."""

    def __init__(self):
        super().__init__()
        self.table, self.first, self.norm = (
            nn.Embedding(50, 32),
            nn.Linear(32, 64),
            nn.LayerNorm(64),
        )
        self.up, self.down, self.head = nn.Linear(64, 96), nn.Linear(96, 64), nn.Linear(64, 8)

    def forward(self, tokens):
        x = self.first(self.table(tokens))
        return self.head(x + self.down(self.up(self.norm(x)).relu()))


@pytest.mark.parametrize("budget", ["flops", "parameters"])
def test_a_budget_counts_on_nothing_that_stays_by_default(budget):
    asked = {"target": {budget: 0.6}, "example_inputs": torch.arange(12).view(2, 6)}
    with pytest.warns(PruneWarning, match="'first', 'down' keep all of their channels") as warned:
        model, masks = prune_core.prune(Residual().eval(), "toy_l1", **asked)
    assert warned[0].filename == __file__
    assert masks["first"]["weight"].all()
    report = shrink(prune_core.unwrap(model), asked["example_inputs"], masks)
    before, after = getattr(report, budget)
    assert after <= 0.6 * before
    assert model.up.out_features < 96
    assert model.down.out_features == 64


@pytest.mark.parametrize("budget", ["flops", "parameters"])
def test_a_budget_that_may_change_the_output_counts_on_all(budget):
    asked = {"target": {budget: 0.6}, "example_inputs": torch.arange(12).view(2, 6)}
    model, masks = prune_core.prune(Residual().eval(), "toy_l1", constants="zero", **asked)
    prune_core.unwrap(model)
    report = shrink(model, asked["example_inputs"], masks, constants="zero")
    before, after = getattr(report, budget)
    assert after <= 0.6 * before
    assert model.down.out_features < 64


def test_what_is_to_be_done_with_constants_is_checked():
    with pytest.raises(ConfigError, match="constants is 'drop'"):
        prune_core.prune(Residual(), "toy_l1", sparsity=0.5, constants="drop")


def test_prune_leaves_nothing_to_go_back_to():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    wrapped, masks = prune_core.prune(
        model, "toy_l1", sparsity=0.5, example_inputs=torch.randn(1, 4)
    )
    wrapper = wrapped[0]
    prune_core.unwrap(wrapped)
    assert not wrapper._removed
    rows = masks["0"]["weight"][:, 0]
    assert not model[0].weight[~rows].any()
    assert model[0].weight[rows].all()

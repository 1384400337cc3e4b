"""Costs that plugins register are budgets like any other."""

import sys
from math import prod
from types import ModuleType

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ChannelPruner, ConfigError, PluginError, Reference, hookimpl, shrink
from prune_core.registry import registered
from prune_speedup.budget.costs import workload_of, workload_of_plan
from prune_speedup.engine.plan import make_plan
from prune_speedup.testing import check_cost
from prune_speedup.torch.cost import cost_of
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import has_rule
from prune_toolkit import (
    NormMetricsCalculator,
    WeightDataCollector,
)


class Channels(ChannelPruner):
    def collector(self):
        return WeightDataCollector(self, channels=True)

    def calculator(self):
        return NormMetricsCalculator(dim=0, p=1)


def traffic(workload):
    return sum(prod(s) for op in workload.operations for s in (*op.inputs, *op.outputs))


def weights(workload):
    return sum(map(prod, workload.parameters.values()))


def nothing(workload):
    return 0


def text(workload):
    return "much"


def rising(workload):
    return 1e6 / traffic(workload)


def constant(workload):
    return 7


class Plugin:
    @hookimpl
    def prune_register_pruners(self):
        return {"channels": Reference("acme_costs:Channels")}

    @hookimpl
    def prune_register_costs(self):
        functions = (traffic, weights, nothing, text)
        return {f.__name__: Reference(f"acme_costs:{f.__name__}") for f in functions}


@pytest.fixture(autouse=True)
def acme(monkeypatch):
    module = ModuleType("acme_costs")
    vars(module).update(
        Channels=Channels, traffic=traffic, weights=weights, nothing=nothing, text=text
    )
    monkeypatch.setitem(sys.modules, "acme_costs", module)
    with registered(Plugin(), "acme"):
        yield


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)),
    ).eval()


X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def measured(model, cost):
    return cost(workload_of(trace(model, X, known=has_rule)))


def test_a_cost_goes_by_its_qualified_name_too(model):
    dense = measured(model, traffic)
    target = {"acme:traffic": 0.6}
    _, masks = prune_core.prune(model, "channels", target=target, example_inputs=X)
    prune_core.unwrap(model)
    shrink(model, X, masks)
    assert measured(model, traffic) / dense <= 0.6


@pytest.mark.parametrize("target", [{"traffic": 0.6}, {"traffic": 0.7, "parameters": 0.3}])
def test_a_cost_is_a_budget(model, target):
    dense = measured(model, traffic)
    parameters = sum(p.numel() for p in model.parameters())
    _, masks = prune_core.prune(model, "channels", target=target, example_inputs=X)
    prune_core.unwrap(model)
    shrink(model, X, masks)
    assert measured(model, traffic) / dense <= target["traffic"]
    if "parameters" in target:
        assert sum(p.numel() for p in model.parameters()) / parameters <= 0.3
    else:
        assert measured(model, traffic) / dense > 0.45  # no more than it takes


def test_a_plan_costs_what_the_small_model_does(model):
    units = prune_core.units(model, X)
    labels = [label for group in units.groups for label in group.labels[:5]]
    plan = make_plan(units.labelling, labels)
    assert weights(workload_of_plan(plan)) == cost_of(plan).parameters
    shrink(model, X, units=[units.unit(label) for label in labels], verify=False)
    assert measured(model, traffic) == traffic(workload_of_plan(plan))
    assert measured(model, weights) == weights(workload_of_plan(plan))


def test_what_an_operation_says(model):
    workload = workload_of(trace(model, X, known=has_rule))
    assert workload.parameters["0.weight"] == (16, 3, 3, 3)
    first = workload.operations[0]
    assert (first.name.split(".")[1], first.layer) == ("convolution", "0")
    assert first.inputs[:2] == ((1, 3, 8, 8), (16, 3, 3, 3))
    assert first.outputs == ((1, 16, 4, 4),)
    assert first.argument("stride") == [2, 2]
    assert first.argument("weight") == (16, 3, 3, 3)
    assert first.argument("nonsense") is None


def test_a_name_that_is_no_cost_is_refused_with_those_that_are(model):
    with pytest.raises(ConfigError, match=r"'trafic'.*latency, nothing, .*Did you mean 'traffic'"):
        prune_core.prune(model, "channels", target={"trafic": 0.5}, example_inputs=X)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("nothing", ConfigError, "target has 'nothing', and the dense model costs nothing of it"),
        ("text", PluginError, "The cost 'text' returned 'much'; it must be a number"),
    ],
)
def test_a_cost_that_is_none_is_refused(model, name, error, says):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(error, match=says):
        prune_core.prune(model, "channels", target={name: 0.5}, example_inputs=X)
    now = model.state_dict()
    assert list(now) == list(state)
    assert all(torch.equal(now[key], state[key]) for key in state)


def test_a_sound_cost_passes():
    check_cost(traffic)
    check_cost(weights)


@pytest.mark.parametrize(
    ("cost", "says"),
    [
        (nothing, "number: the dense model costs nothing"),
        (text, "number: with nothing gone it is 'much'"),
        (rising, "monotony: it is .* with nothing gone, and .* with 1 channels gone"),
        (constant, "monotony: it never falls"),
        (iter([1.0] * 10**4).__next__, "TypeError"),
    ],
)
def test_an_unsound_cost_is_caught(cost, says):
    with pytest.raises(AssertionError, match=says):
        check_cost(cost)


def test_a_cost_that_changes_its_mind_is_caught():
    asked = []

    def fickle(workload):
        asked.append(1)
        return traffic(workload) + len(asked)

    with pytest.raises(AssertionError, match="determinism: with nothing gone it is"):
        check_cost(fickle)

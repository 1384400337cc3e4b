"""What a smaller model leaves of a larger one, of whatever was asked for."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ConfigError, Reference, hookimpl
from prune_core.registry import registered
from prune_speedup.budget import whole as module
from prune_speedup.budget.whole import Whole

X = torch.randn(2, 3, 16, 16)


def cnn(width=16):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 8, 3)
    ).eval()


def test_it_counts_what_shrink_counts():
    model = cnn()
    whole = Whole(cnn(), X, ["parameters", "flops"])
    units = prune_core.units(model, X)
    chosen = [units.unit(label) for label in units.groups[0].labels[:6]]
    report = prune_core.shrink(model, X, units=chosen)
    left = whole.left(model)
    assert left["flops"] == pytest.approx(report.flops[1] / report.flops[0])
    assert left["parameters"] == pytest.approx(report.parameters[1] / report.parameters[0])
    assert whole.left(cnn()) == {"parameters": 1, "flops": 1}


def widest(workload):
    return max(shape[0] for shape in workload.parameters.values())


def test_costs_of_plugins(monkeypatch):
    class Plugin:
        @hookimpl
        def prune_register_costs(self):
            return {"widest": Reference("toy_costs:widest")}

    costs = ModuleType("toy_costs")
    costs.widest = widest
    monkeypatch.setitem(sys.modules, "toy_costs", costs)
    with registered(Plugin(), "costs"):
        assert Whole(cnn(), X, ["widest"]).left(cnn(12)) == {"widest": 0.75}


def test_latency_is_of_the_two_models_in_turns(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "relative_latency", lambda *given: seen.append(given) or 0.5)
    large, small = cnn(), cnn(8)
    assert Whole(large, X, ["latency"]).left(small) == {"latency": 0.5}
    assert seen[0][:2] == (small, large)


def test_a_model_that_does_not_run():
    with pytest.raises(ConfigError):
        Whole(cnn(), torch.zeros(2, 4, 16, 16), ["flops"])

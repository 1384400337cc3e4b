"""What plugins teach the engine, and what they hear of it."""

import re
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from prune_core import PluginWarning, Reference, hookimpl, shrink, units
from prune_core.registry import registered
from prune_speedup.engine.values import Value
from prune_speedup.testing import check_rule


@torch.library.custom_op("acme_speedup::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def rule_of_doubled(flow, call):
    value = flow.get(call.args[0])
    return Value(value.shape, value.groups, value.free)


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.second(doubled(self.first(x)))


class Grid(nn.Module):
    """Reads two sizes that only make sense together."""

    __module__ = "acme_speedup_plugin"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3))
        self.rows, self.squared = 6, 36

    def forward(self, x):
        assert self.rows**2 == self.squared
        return (x @ self.weight.T).view(-1, self.rows)


def resize_grid(module):
    module.rows = len(module.weight)
    module.squared = module.rows**2


class SquareGrid(Grid):
    pass


class Listener:
    def __init__(self):
        self.heard = []

    @hookimpl
    def prune_model_shrunk(self, model, report):
        self.heard.append((model, report))


@pytest.fixture
def acme(monkeypatch):
    """A module that references can name, as a plugin's own would be."""
    module = ModuleType("acme_speedup_plugin")
    module.rule_of_doubled = rule_of_doubled
    module.resize_grid = resize_grid
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def plugin(**hooks):
    """A plugin whose registration hooks return these."""

    def hook(name, returned):
        def function(self):
            return returned

        function.__name__ = name
        return hookimpl(function)

    return type("Hooks", (), {name: hook(name, value) for name, value in hooks.items()})()


def half_gone(model, inputs):
    found = units(model, inputs)
    return [found.unit(label) for group in found.groups for label in group.labels[::2]]


def test_a_plugin_brings_the_rule_of_its_operator(acme):
    model, inputs = Doubled(), torch.randn(4, 3)
    assert len(units(model, inputs)) == 0
    rules = {"acme_speedup.doubled": Reference(f"{acme}:rule_of_doubled")}
    with registered(plugin(prune_register_rules=rules)):
        found = units(model, inputs)
        assert [len(group) for group in found.groups] == [6]
        assert not found.unknown
        report = shrink(model, inputs, units=half_gone(model, inputs))
    assert model.first.weight.shape == (3, 3)
    assert report.comparison.ok
    assert len(units(Doubled(), inputs)) == 0


def test_a_rule_that_cannot_be_imported_is_said_and_costs_no_more_than_its_operator():
    rules = {"acme_speedup.doubled": Reference("acme_nowhere:rule")}
    with (
        registered(plugin(prune_register_rules=rules), "acme"),
        pytest.warns(PluginWarning, match=r"acme_speedup\.doubled.*acme.*goes on without it"),
    ):
        assert len(units(Doubled(), torch.randn(4, 3))) == 0


def rule_that_adds(flow, call):
    return flow.get(call.args[0]) + 1


def rule_without_a_call(flow):
    return flow


def rule_that_asks_wrongly(flow, call):
    return flow.align(call, axis=1)


@pytest.mark.parametrize(
    ("rule", "line"),
    [(rule_that_adds, 1), (rule_without_a_call, 0), (rule_that_asks_wrongly, 1)],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_a_rule_that_fails_is_named_with_its_operator_and_its_place(acme, rule, line):
    setattr(sys.modules[acme], rule.__name__, rule)
    rules = {"acme_speedup.doubled": Reference(f"{acme}:{rule.__name__}")}
    code = rule.__code__
    told = re.compile(
        rf"the rule {re.escape(__name__)}\.{rule.__name__} of acme_speedup\.doubled\S* failed: "
        rf"TypeError: .+ \({re.escape(code.co_filename)}:{code.co_firstlineno + line}\)"
    )
    with registered(plugin(prune_register_rules=rules), "acme"):
        found = units(Doubled(), torch.randn(4, 3))
        assert told.search(found.why_fixed("first.weight", 0))
        with pytest.raises(AssertionError, match=told) as caught:
            check_rule(doubled, (4, 6))
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_rule_for_an_operator_of_torch_is_not_taken(acme):
    rules = {"aten.relu": Reference(f"{acme}:no_such_rule")}
    with registered(plugin(prune_register_rules=rules)):
        net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        assert len(units(net, torch.randn(1, 3))) == 4


@pytest.mark.parametrize("kind", [Grid, SquareGrid])
def test_a_plugin_brings_what_resizes_a_type_and_its_subclasses(acme, kind):
    model, inputs = nn.Sequential(kind(), nn.Linear(6, 2)), torch.randn(4, 3)
    resizers = {"acme_speedup_plugin.Grid": Reference(f"{acme}:resize_grid")}
    with registered(plugin(prune_register_resizers=resizers)):
        shrink(model, inputs, units=half_gone(model, inputs))
    assert (model[0].rows, model[0].squared) == (3, 9)
    assert model(torch.randn(7, 3)).shape == (7, 2)


def test_a_name_without_a_dot_is_refused():
    rules = {"doubled": Reference("math:sqrt")}
    with (
        pytest.warns(PluginWarning, match="'doubled'; a name is a dotted path"),
        registered(plugin(prune_register_rules=rules), "acme"),
    ):
        units(Doubled(), torch.randn(4, 3))


def test_a_listener_hears_of_a_small_model_and_not_of_a_failure():
    listener = Listener()
    model, inputs = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(4, 3)
    with registered(listener):
        report = shrink(model, inputs, units=half_gone(model, inputs))
        with pytest.raises(Exception, match="do not fit|does not run"):
            shrink(model, torch.randn(4, 5))
    assert listener.heard == [(model, report)]

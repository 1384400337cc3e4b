"""Rules as a plugin sees them, and what happens when one is wrong."""

import pytest
import torch
from torch import nn

from prune_speedup.torch import rule, units
from prune_speedup.torch.rules import registry


@pytest.fixture(autouse=True)
def _rules_put_back(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))


class Swirled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.nanmedian(self.a(x), 0, keepdim=True).values)


def test_a_new_rule_makes_an_operator_known():
    inputs = torch.ones(1, 3)
    before = units(Swirled(), inputs)
    assert len(before) == 0
    assert before.unknown

    @rule("aten.nanmedian")
    def swirl(flow, call):
        return [flow.get(call.args[0])] * 2

    found = units(Swirled(), inputs)
    assert len(found) == 4
    assert not found.unknown


def test_a_rule_that_fails_keeps_what_it_was_given():
    @rule("aten.relu")
    def broken(flow, call):
        raise KeyError("oops")

    found = units(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(1, 3))
    assert len(found) == 0
    assert "oops" in found.why_fixed("0.weight", 0)


def test_a_rule_that_makes_another_shape_is_not_believed():
    from prune_speedup.engine.values import Value

    @rule("aten.relu")
    def wrong(flow, call):
        return Value((1,))

    found = units(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(1, 3))
    assert len(found) == 0
    assert "other shapes" in found.why_fixed("0.weight", 0)

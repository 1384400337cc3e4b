"""Zeros that two layers share have one length, so both layers have to lose as many channels."""

import torch
from torch import nn

from prune_speedup.torch import shrink, units


class Shared(nn.Module):
    def __init__(self, shown=False):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(6, 8)
        self.left, self.right = nn.Linear(8, 3), nn.Linear(8, 3)
        self.shown = shown

    def forward(self, x):
        bias = torch.zeros(1, 8)
        first, second = self.first(x) + bias, self.second(x) + bias
        return second if self.shown else self.left(first.relu()) + self.right(second.relu())


def test_they_go_together_and_exactly():
    torch.manual_seed(0)
    model, x = Shared().eval(), torch.randn(2, 6)
    (group,) = units(model, x).groups
    assert {("first.weight", 0), ("second.weight", 0)} <= set(group.axes)
    report = shrink(model, x, units=[units(model, x).unit(label) for label in group.labels[:5]])
    assert model.first.weight.shape == model.second.weight.shape == (3, 6)
    assert not report.returned


def test_zeros_made_twice_are_two_tensors():
    class Apart(Shared):
        def forward(self, x):
            first, second = self.first(x) + torch.zeros(1, 8), self.second(x) + torch.zeros(1, 8)
            return self.left(first.relu()) + self.right(second.relu())

    assert len(units(Apart().eval(), torch.randn(2, 6)).groups) == 2


def test_what_stays_in_one_use_stays_in_the_other():
    model, x = Shared(shown=True).eval(), torch.randn(2, 6)
    assert not units(model, x).groups
    assert units(model, x).why_fixed("first.weight", 0) == "the model returns it"


def test_what_meets_an_input_as_well_cannot_be_shorter():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.left = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            bias = torch.zeros(1, 8)
            return self.left((self.first(x) + bias).relu()), (x + bias).sum(1)

    found = units(Mixed().eval(), torch.randn(4, 8))
    assert not found.groups
    assert "one tensor is as long in all of its uses" in found.why_fixed("first.weight", 0)

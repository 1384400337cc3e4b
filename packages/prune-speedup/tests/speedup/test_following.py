"""Results that follow from compared ones are not compared again, as long as they do follow."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hidden_inside import Sized, halved, refused
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from prune_core import shrink
from prune_speedup.torch.proof.inside import Inside
from prune_speedup.torch.record.operators import operator_of

WRONG = {
    "a number": (lambda y: F.hardtanh(y, -1e-3, 1e3), lambda y: F.hardtanh(y, -2e-3, 1e3)),
    "an order": (lambda y: y - y.sin(), lambda y: y.sin() - y),
    "a type": (lambda y: y.clamp(min=0), lambda y: y.clamp(min=-0.1)),
    "a slope": (lambda y: F.leaky_relu(y, 0.2), lambda y: F.leaky_relu(y, 0.4)),
    "memory": (lambda y: moved(y, 0), lambda y: moved(y, 1)),
    "a part of it": (lambda y: y.sin() * written(y, 0), lambda y: y.sin() * written(y, 1)),
}


def moved(y, at):
    """Gives a tensor the memory of another one, of which no call tells."""
    both, z = (y.sin(), y.tanh()), y.cos()
    z.data = both[at]
    return z * y


def written(y, row):
    """Writes into a row of a result, past torch's functions; another row, with the same numbers."""
    z = (y * 0).cos()
    torch.ops.aten.select.int(z, 0, row).zero_()
    return z


@pytest.mark.parametrize(("before", "after"), WRONG.values(), ids=WRONG)
def test_what_follows_from_compared_results_has_to_follow_in_both_models(before, after):
    model = halved(Sized(before, after), faint=True)
    model.between.layer = [model.first]
    assert refused(model, torch.rand(3, 3))


class Beside(nn.Module):
    """Computes something beside a layer that is cut, which it does otherwise after that."""

    def __init__(self, beside):
        super().__init__()
        self.first, self.head, self.last = nn.Linear(3, 8), nn.Linear(8, 3), nn.Linear(3, 2)
        self.beside = beside

    def forward(self, x):
        beside = self.beside(x, int(self.first.out_features < 8))
        return self.last(self.head(self.first(x)) + beside).round(decimals=-3)


def of_two(x, at):
    """Of two results of one call, the difference, this way round or that."""
    both = torch.linalg.slogdet(x @ x.T + torch.eye(3))
    return both[at].exp() - both[1 - at].exp()


def copied(x, at):
    """Copies into a result by a call that returns nothing."""
    z, both = x.cos(), (x.sin(), x.tanh())
    torch._foreach_copy_([z], [both[at]])
    return z * both[0]


def written_elsewhere(x, at):
    """Writes into memory by a tensor that shares it, and no version of it."""
    z, both = x.cos(), (x.sin(), x.tanh())
    z.data.copy_(both[at])
    return z * both[0]


@pytest.mark.parametrize("beside", [of_two, copied, written_elsewhere])
def test_what_is_written_or_chosen_unseen_is_compared(beside):
    torch.manual_seed(0)
    model = Beside(beside).eval()
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter[:4] = 0
        model.last.weight.mul_(1e-9)
    assert refused(model, torch.rand(3, 3))


def test_what_was_done_is_counted_where_the_same_calls_do_it_in_another_order():
    """The product of three matrices is computed in the order that is cheapest."""
    model, x = (
        halved(lambda y: torch.linalg.multi_dot([y.relu(), y.t(), y.relu()])),
        torch.rand(3, 3),
    )
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter[:7] = 0
    report = shrink(model, x)
    assert model.first.out_features == 1
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert report.flops[1] == counter.get_total_flops()


@pytest.mark.parametrize(("other", "compared"), [([0, 1], 2), ([2, 3], 3)])
def test_what_follows_from_other_channels_is_compared(other, compared):
    """Of a sum, the channels that stay have to be those of both terms."""
    stay = [np.array([0, 1]), np.array(other), np.array([0, 1])]
    plan = SimpleNamespace(
        kept_of_value=lambda value: {1: stay[value]},
        labelling=SimpleNamespace(graph=SimpleNamespace(metas=[torch.empty(2, 4)] * 3)),
    )
    aten = torch.ops.aten
    operators = [operator_of(each) for each in (aten.mm.default, aten.mm.default, aten.add.Tensor)]
    inside = Inside(plan, all_results=False)
    one, two = torch.rand(2, 4), torch.rand(2, 4)
    for value, result in enumerate([one, two, total := one + two]):
        told = ((one, two), {}) if result is total else ((), {})
        call = SimpleNamespace(outputs=[value])
        inside.note(operators[value], "", told, result, call)
    small = [one[:, :2], two[:, other]]
    for value, result in enumerate([*small, total := sum(small)]):
        told = (tuple(small), {}) if result is total else ((), {})
        inside.check(operators[value], told, result)
    assert inside.compared == compared
    assert (inside.worst()[0] > 1) == (other == [2, 3])
    assert not inside.lost

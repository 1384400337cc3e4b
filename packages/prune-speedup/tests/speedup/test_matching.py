"""Where one of two models makes other calls, those of both are still found, and not mistaken."""

import pytest
import torch
from hidden_inside import Sized, halved, refused
from torch import nn
from torch.nn import functional as F

from prune_core import shrink

OTHER = {
    "another call": (torch.sin, torch.tanh),
    "more calls": (torch.sin, lambda y: y.sin().sin()),
    "fewer calls": (lambda y: y.sin().sin(), torch.sin),
}


@pytest.mark.parametrize(("before", "after"), OTHER.values(), ids=OTHER)
def test_models_that_make_other_calls_are_compared_where_they_read_a_parameter(before, after):
    model = halved(Sized(before, after))
    model.between.layer = [model.first]
    assert refused(model, torch.rand(3, 3))


class ByEinsum(nn.Module):
    """Of a single channel, torch computes the product by other calls."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(1, 2)

    def forward(self, x):
        return self.last(torch.einsum("bd,bd->b", self.one(x), self.two(x))[:, None])


def test_other_calls_that_come_to_the_same_are_no_mistake():
    torch.manual_seed(0)
    model, x = ByEinsum().eval(), torch.rand(4, 3)
    with torch.no_grad():
        for parameter in (*model.one.parameters(), *model.two.parameters()):
            parameter[1:] = 0
    expected = model(x)
    assert shrink(model, x).verified[0] == "the example"
    assert model.one.out_features == 1
    torch.testing.assert_close(model(x), expected)


class Branches(nn.Module):
    """Norms in one place, of which one is left out in training, or where there are few rows."""

    def __init__(self, few=0):
        super().__init__()
        self.few = few
        self.layers = nn.ModuleList(nn.Linear(3, n) for n in (8, 6))
        self.heads = nn.ModuleList(nn.Linear(n, 2) for n in (8, 6))
        self.scales = nn.ParameterList(torch.rand(n) for n in (8, 6))
        self.shifts = nn.ParameterList(torch.rand(n) for n in (8, 6))

    def forward(self, x):
        x, use = F.dropout(x, 0.1, self.training), [1] if self.training else [0, 1]
        if len(x) < self.few:
            x, use = x + 0, [1]
        ys = [self.layers[i](x) for i in use]
        norms = [(self.scales[i], self.shifts[i]) for i in use]
        ys = [F.layer_norm(y, y.shape[1:], *norm) for y, norm in zip(ys, norms, strict=True)]
        return sum(self.heads[i](y.relu()) for i, y in zip(use, ys, strict=True))


def branches(few=0):
    torch.manual_seed(0)
    model = Branches(few).eval()
    with torch.no_grad():
        for layer, head, scale, shift in zip(
            model.layers, model.heads, model.scales, model.shifts, strict=True
        ):
            layer.weight[:2] = layer.bias[:2] = scale[:2] = shift[:2] = 0
            head.weight[:, :2] = 0
    return model


def test_a_call_is_not_taken_for_another_one_at_its_place():
    model, x = branches(few=3), torch.rand(4, 3)
    assert "verify_inputs[0]" in shrink(model, x, verify_inputs=[x[:2]]).verified
    assert any("training" in name for name in shrink(branches(), x).verified)


class Apart(nn.Module):
    """Does otherwise when it is narrow, before a layer that it keeps in a list."""

    def __init__(self):
        super().__init__()
        self.first, self.head, self.tail = nn.Linear(3, 8), nn.Linear(8, 3), [nn.Linear(3, 2)]

    def forward(self, x):
        y = self.head(self.first(x))
        y = y.sin() if self.first.out_features == 8 else y.tanh()
        return self.tail[0](y).round(decimals=-3)


def test_a_parameter_that_is_not_registered_brings_models_together_again():
    model = Apart().eval()
    with torch.no_grad():
        model.first.weight[:4] = model.first.bias[:4] = 0
    assert refused(model, torch.rand(3, 3))

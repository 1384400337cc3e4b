"""The comparison of the masked and the small model: rounding is no error, an error no rounding."""

import pytest
import torch
from torch import nn

from prune_core.errors import SpeedupError
from prune_core.graph import trace, units
from prune_core.graph.decisions import agree
from prune_core.speedup import shrink


class Cancelling(nn.Module):
    """The difference of two large sums, of which single precision leaves little."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 64), nn.Parameter(torch.randn(32, 64))
        self.c = nn.Parameter(self.b.detach() + 1e-6 * torch.randn(32, 64))

    def forward(self, x):
        y = 1e6 * self.a(x).relu()[:, None]
        return (y * self.b).sum(-1) - (y * self.c).sum(-1)


def test_rounding_is_told_from_an_error_in_double_precision():
    torch.manual_seed(0)
    model, x = Cancelling(), torch.rand(16, 6)
    half = list(units(model, x))[::2]
    with pytest.raises(SpeedupError, match="differs from the masked one"):
        shrink(model, x, units=half, tolerance=1e-4)
    report = shrink(model, x, units=half)
    assert report.difference.tolerance == 1e-6
    assert report.difference.ok
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.a.weight.shape == (32, 6)


class Branching(nn.Module):
    def forward(self, x):
        rows = (x > 0).nonzero()
        return x[x > 0].sum() if len(rows) > 2 and x.sum() > 0 else x.mean()


def test_what_a_forward_decides_by_is_recorded():
    one, other = torch.tensor([1.0, 2.0, 3.0, -4.0]), torch.tensor([1.0, 2.0, 4.0, -3.0])
    seen = [trace(Branching(), x).decisions for x in (one, other, -other)]
    assert len(seen[0]) == 3  # where x is positive, whether its sum is, and a mask
    assert agree(seen[0], seen[1])
    assert not agree(seen[0], seen[2])

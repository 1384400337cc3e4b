"""The comparison of the masked and the small model: rounding is no error, an error no rounding."""

import pytest
import torch
from torch import nn

from prune_core.errors import PruneWarning, SpeedupError
from prune_core.speedup import shrink
from prune_speedup.torch import trace, units
from prune_speedup.torch.proof import higher_precision
from prune_speedup.torch.record.data_dependent import agree


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
    assert report.comparison.tolerance == 1e-6
    assert report.comparison.ok
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


class Unfolded(nn.Module):
    """Features that become places of channels, which only go as a whole."""

    def __init__(self, then):
        super().__init__()
        self.wide, self.then = nn.Linear(5, 4 * 4), then

    def forward(self, x):
        return self.then(self.wide(x).view(-1, 4, 2, 2)).flatten(1)


@pytest.mark.parametrize(
    "then",
    [
        nn.Conv2d(4, 3, 2),
        nn.ConvTranspose2d(4, 3, 2),
        nn.Conv2d(4, 4, 2, groups=2),
        nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 3, 1)),
        nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 1)),
    ],
    ids=["plain", "transposed", "groups", "pool", "upsample"],
)
def test_a_channel_that_is_masked_at_some_places_stays(then):
    torch.manual_seed(0)
    model, x = Unfolded(then).eval(), torch.rand(2, 5)
    keep = torch.ones(16, dtype=torch.bool)
    keep[::4] = False  # the first place of every channel
    masks = {"wide": {"weight": keep[:, None].expand(16, 5), "bias": keep}}
    with torch.no_grad():
        model.wide.bias.mul_(keep)
        model.wide.weight.mul_(keep[:, None])
    expected = model(x)
    with pytest.warns(PruneWarning, match="masked channels stay in the model"):
        shrink(model, x, masks, verify=False)
    torch.testing.assert_close(model(x), expected)
    assert model.wide.weight.shape == (16, 5)


def test_places_that_are_looked_up_are_told_apart():
    class Looked(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.head = nn.Linear(5, 12), nn.Linear(3, 2)

        def forward(self, x, places):
            return self.head(self.wide(x).view(-1, 4, 3)[:, places])

    torch.manual_seed(0)
    model, inputs = Looked().eval(), (torch.rand(2, 5), torch.tensor([2, 1]))
    with torch.no_grad():
        for tensor in (model.wide.weight, model.wide.bias):
            tensor[:3] = 0  # all that stands at place 0, which nobody looks up
    expected = model(*inputs)
    with pytest.warns(PruneWarning, match="masked channels stay in the model"):
        shrink(model, inputs, verify=False)
    torch.testing.assert_close(model(*inputs), expected)


def test_a_padding_that_is_not_zero_is_no_unit():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.head(nn.functional.pad(self.wide(x), (0, 0, 0, 0, 0, 2), value=1.0))

    model, x = Padded().eval(), torch.rand(2, 3, 2, 2)
    assert [unit.slices["head.weight"] for unit in units(model, x)] == [
        {1: (index,)} for index in range(4)
    ]


class WrittenRMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def _convolutional():
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 4, 3)]
    x = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3)), x


def _of_words():
    norms = nn.LayerNorm(6), WrittenRMSNorm(6)
    layers = [nn.Embedding(9, 6), *norms, nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)]
    return nn.Sequential(*layers), torch.arange(8).reshape(2, 4)


@pytest.mark.parametrize(
    ("make", "units", "copies"),
    [(_convolutional, {"0.weight": {0: [1, 5]}}, True), (_of_words, {"3.weight": {0: [1]}}, False)],
)
def test_half_precision_is_proved_alike_with_and_without_a_wide_copy(
    monkeypatch, make, units, copies
):
    found, widened, put = [], [], higher_precision.put

    def noted(*each):
        widened.append(each)
        put(*each)

    monkeypatch.setattr(higher_precision, "put", noted)
    for room in (1 << 30, 0):
        monkeypatch.setattr(higher_precision, "_AT_MOST", room)
        widened.clear()
        torch.manual_seed(0)
        model, x = make()
        report = shrink(model.bfloat16().eval(), x, units=[units])
        assert bool(widened) == (copies or room > 0)
        found.append((report.comparison, report.verified, report.inside))
    assert found[0] == found[1]

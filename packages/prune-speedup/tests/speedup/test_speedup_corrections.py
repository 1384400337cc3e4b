"""A model whose calls are corrected is still an ordinary model."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prune_core.errors import SpeedupError
from prune_core.speedup import shrink
from prune_speedup.torch import units
from prune_speedup.torch.resize.smaller import corrections_of


class Literal(nn.Module):
    """A forward with a size written into the source."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.second(self.first(x).view(-1, 8))


def corrected():
    torch.manual_seed(0)
    model = Literal()
    found = units(model, torch.ones(2, 3))
    shrink(
        model, torch.ones(2, 3), units=[found.unit(label) for label in found.groups[0].labels[:5]]
    )
    return model


def test_it_follows_any_batch_and_trains():
    model = corrected()
    (correction,) = corrections_of(model)
    assert correction.path[-1].text == "self.first(x).view(-1, 8)"
    assert correction.numbers == ((1, (((8, 3),), False)),)
    model(torch.rand(7, 3)).sum().backward()
    assert model.first.weight.grad.shape == (3, 3)


def test_it_can_be_copied_and_pickled():
    model = corrected()
    inputs = torch.rand(4, 3)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(inputs), model(inputs))
        assert corrections_of(other) == corrections_of(model)


def test_a_forward_that_fails_leaves_no_correction_running():
    model = corrected()
    with pytest.raises(RuntimeError):
        model(torch.rand(4, 5))
    assert torch.ones(16).view(-1, 8).shape == (2, 8)
    assert model(torch.rand(4, 3)).shape == (4, 2)


def test_it_can_be_shrunk_again():
    model = corrected()
    found = units(model, torch.ones(2, 3))
    assert len(found) == 3
    shrink(model, torch.ones(2, 3), units=[next(iter(found))])
    assert model.second.in_features == 2
    assert model(torch.rand(5, 3)).shape == (5, 2)


def test_a_second_shrink_that_fails_leaves_the_first():
    model = corrected()
    inputs = torch.rand(5, 3)
    before, found = model(inputs), units(model, torch.ones(2, 3))
    with pytest.raises(SpeedupError):
        shrink(model, torch.ones(2, 3), units=[next(iter(found))], tolerance=-1.0)
    assert torch.equal(model(inputs), before)


class OverLines(Literal):
    """Chains of methods, each on a line of its own, and a function that is called over lines."""

    def forward(self, x):
        # fmt: off
        y = (
            self.first(x)
            .view(-1, 8)
            .relu()
            .reshape(1, -1, 8)
        )
        return self.second(
            flat(
                y.tanh(),
            )
            .view(-1, 8)
        )
        # fmt: on


def flat(y):
    # fmt: off
    return (
        y
        .sigmoid()
        .reshape(-1, 8)
    )
    # fmt: on


def test_calls_that_stand_on_several_lines():
    torch.manual_seed(0)
    model, x = OverLines().double(), torch.rand(2, 3, dtype=torch.float64)
    masked, gone = copy.deepcopy(model), [0, 1, 2, 4, 5, 7]
    with torch.no_grad():
        masked.second.weight[:, gone] = 0
    found = units(model, x)
    labels = found.axes["first.weight", 0][gone]
    with torch.no_grad():
        model.second.weight[:, gone] = 0  # a masked channel is not zero behind a sigmoid
    report = shrink(model, x, units=[found.unit(int(label)) for label in labels])
    assert model.first.out_features == 2
    assert len(report.corrections) == 4
    more = torch.rand(5, 3, dtype=torch.float64)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(more), masked(more))


class Between(nn.Module):
    """Something with numbers in it, between two layers."""

    def __init__(self, between):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.scale, self.kernel = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8, 1, 3))
        self.between = between

    def forward(self, x):
        return self.last(self.between(self, self.first(x)))


def thrice(y):
    return y.unsqueeze(-1).expand(-1, -1, 3)


LITERALS = {
    "zeros": lambda net, y: y + torch.zeros(8),
    "ones by name": lambda net, y: y * torch.ones(size=(8,)),
    "full": lambda net, y: y * torch.full((8,), 0.1),
    "new_zeros": lambda net, y: y + y.new_zeros((1, 8)),
    "shape by name": lambda net, y: torch.reshape(y, shape=(-1, 8)).relu(),
    "layer_norm": lambda net, y: F.layer_norm(y, (8,), net.scale),
    "layer_norm by name": lambda net, y: F.layer_norm(y, normalized_shape=(8,), weight=net.scale),
    "rms_norm": lambda net, y: F.rms_norm(y, (8,), net.scale),
    "rms_norm by name": lambda net, y: F.rms_norm(y, weight=net.scale, normalized_shape=[8]),
    "rms_norm that adds a whole number": lambda net, y: F.rms_norm(y, (8,), net.scale, 0),
    "group_norm": lambda net, y: F.group_norm(y, 8, net.scale),
    "depthwise": lambda net, y: F.conv1d(thrice(y), net.kernel, None, 1, 0, 1, 8).squeeze(-1),
    "depthwise by name": lambda net, y: F.conv1d(thrice(y), net.kernel, groups=8).squeeze(-1),
    "slices": lambda net, y: torch.cat([y[:, :4].relu(), y[:, 4:8]], -1),
    "roll": lambda net, y: y.roll(3, 1).tanh(),
    "roll back": lambda net, y: torch.roll(y, (1, -5), (0, 1)).tanh(),
    "roll by name": lambda net, y: torch.roll(y, shifts=11, dims=1).tanh(),
    "roll whole rows": lambda net, y: y.roll(3).tanh(),
}


@pytest.mark.parametrize("between", LITERALS.values(), ids=LITERALS)
def test_numbers_of_every_kind(between):
    torch.manual_seed(0)
    model, x = Between(between).double().eval(), torch.randn(2, 6, dtype=torch.float64)
    gone = torch.tensor([0, 3, 4, 6])
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in (masked.first.weight, masked.first.bias, masked.scale):
            tensor[gone] = 0
        name = next(name for name, each in LITERALS.items() if each is between).split()[0]
        if name in ("layer_norm", "rms_norm"):
            norm = getattr(F, name)
            masked.between = lambda net, y: norm_of_the_others(norm, net, y, gone)
    found = units(model, x)
    labels = found.axes["first.weight", 0][gone.numpy()]
    report = shrink(model, x, units=[found.unit(int(label)) for label in dict.fromkeys(labels)])
    assert model.first.out_features <= 4
    assert [module for module, _, _ in report.corrections] == [""] * len(report.corrections)
    assert report.corrections
    more = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(model(more), masked(more))


def norm_of_the_others(norm, net, y, gone):
    live = [index for index in range(8) if index not in gone]
    out = torch.zeros_like(y)
    out[:, live] = norm(y[:, live], (len(live),), net.scale[live])
    return out


class Biased(nn.Module):
    """An attention whose mask is made for so many heads, and holds nothing."""

    def __init__(self):
        super().__init__()
        self.heads = 4
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (
            layer(x).view(batch, length, self.heads, 2).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        bias = torch.zeros((1, self.heads, length, length), dtype=x.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))

    def mean_of_heads(self, y):
        return y / self.heads  # no size, so the attribute stays what it was


def test_a_mask_made_for_so_many_heads():
    torch.manual_seed(0)
    model, x = Biased().eval().double(), torch.randn(2, 5, 8, dtype=torch.float64)
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.out.weight[:, 2:6] = 0
    found = units(model, x)
    labels = dict.fromkeys(found.axes["q.weight", 0][2:6].tolist())
    shrink(model, x, units=[found.unit(label) for label in labels])
    assert model.heads == 4
    assert model.q.out_features == 4
    more = torch.randn(3, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(model(more), masked(more))

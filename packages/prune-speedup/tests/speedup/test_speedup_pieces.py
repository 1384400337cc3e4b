"""Removing units equals masking them: where axes are sliced, split, shifted, opened and folded."""

import copy

import pytest
import torch
import torch.nn.functional as F
from exactness import check, choose, image, masked_like, realistic
from torch import nn

from prune_core.errors import PruneWarning, SpeedupError
from prune_core.speedup import shrink
from prune_speedup.torch import units


class Slices(nn.Module):
    """Pieces of features by every kind of slice, each for a layer of its own."""

    def __init__(self, *slices):
        super().__init__()
        self.slices, self.first, self.head = slices, nn.Linear(3, 16), nn.Linear(4, 2)
        widths = [len(range(16)[each]) for each in slices]
        self.layers = nn.ModuleList(nn.Linear(width, 4) for width in widths)

    def forward(self, x):
        x = self.first(x).relu()
        pairs = zip(self.layers, self.slices, strict=True)
        return self.head(sum(layer(x[..., each]).relu() for layer, each in pairs))


@pytest.mark.parametrize(
    "slices",
    [
        (slice(None, None, 2), slice(1, None, 2)),
        (slice(None, None, 3), slice(-6, None)),
        (slice(4, 10), slice(6, None)),
        (slice(-12, -6), slice(None, -1)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_slices_take_what_they_took(slices, seed):
    check(Slices(*slices), torch.rand(2, 3, dtype=torch.float64), seed=seed)


def test_narrow_takes_what_it_took():
    class Narrowed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(3, 16), nn.Linear(6, 2)
            self.most = nn.Linear(15, 2)

        def forward(self, x):
            x = self.first(x).relu()
            return self.head(x.narrow(1, 4, 6)) + self.most(torch.narrow(x, -1, 1, 15))

    check(Narrowed(), torch.rand(2, 3, dtype=torch.float64))


def test_a_literal_size_beside_the_batch():
    class Conditional(nn.Module):
        """A convolution with weights of its own for every sample."""

        def __init__(self):
            super().__init__()
            self.route, self.head = nn.Linear(3, 4), nn.Conv2d(16, 2, 1)
            self.weights = nn.Parameter(torch.randn(4, 16, 3, 3, 3))

        def forward(self, x):
            b, c, h, w = x.shape
            mixed = self.route(x.mean((2, 3))).sigmoid() @ self.weights.view(4, -1)
            x = x.reshape(1, b * c, h, w)
            x = F.conv2d(x, mixed.view(b * 16, c, 3, 3), padding=1, groups=b)
            return self.head(x.view(b, 16, h, w))

    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    check(Conditional(), x, others=[(torch.rand(5, 3, 4, 4, dtype=torch.float64),)])


def test_a_literal_size_under_an_empty_batch():
    class Literal(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(3, 16), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.first(x).view(x.shape[0], 2, 8))

    report = check(Literal(), torch.rand(3, 3, dtype=torch.float64))
    model = report.model
    assert model.head.in_features < 8
    assert model(torch.rand(0, 3, dtype=torch.float64)).shape == (0, 2, 2)


class Shifted(nn.Module):
    """A part of the channels is moved on by a place, another back, as in videos."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x):
        x = self.first(x)
        part = x.shape[2] // 4
        y = torch.zeros_like(x)
        y[:, 1:, :part] = x[:, :-1, :part]
        y[:, :-1, part : 2 * part] = x[:, 1:, part : 2 * part]
        y[:, :, 2 * part :] = x[:, :, 2 * part :]
        y = self.second(y)
        y[:, 0] = 0
        y[..., ::2] += 1.0
        return self.head(y.relu())


class Spread(nn.Module):
    """Some frequencies of each channel are mixed and put among zeros."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.mix = nn.Parameter(torch.randn(4, 8, 8))

    def forward(self, x):
        x = self.first(x)
        made = torch.zeros(x.shape[0], 9, 8, dtype=x.dtype)
        made[:, :4] = torch.einsum("bti,tio->bto", x[:, :4], self.mix)
        return self.head(made.cumsum(1))


class Masking(nn.Linear):
    """A layer that cuts its own weight whenever it runs."""

    def forward(self, x):
        self.weight.data *= torch.ones(1, self.in_features).to(x)
        return super().forward(x)


@pytest.mark.parametrize(
    "model", [Shifted(), Spread(), nn.Sequential(nn.Linear(3, 8), nn.ReLU(), Masking(8, 2))]
)
def test_what_is_written_to_a_part_of_a_tensor(model):
    check(model, torch.rand(2, 5, 3, dtype=torch.float64), others=[(torch.rand(4, 6, 3).double(),)])


def test_a_view_of_what_was_written_to_keeps_its_labels_to_itself():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(3, 8), nn.Linear(4, 2)

        def forward(self, x):
            x = self.first(x)
            part = x[:, :4]
            x.mul_(torch.arange(8).to(x))
            return self.head(part)

    model, x = realistic(Late()), torch.rand(2, 3, dtype=torch.float64)
    expected = model(x)
    shrink(model, x, units=units(model, x))
    torch.testing.assert_close(model(x), expected)


class Between(nn.Module):
    """Something done to features, between a layer that makes them and one that reads them."""

    def __init__(self, first, act, last):
        super().__init__()
        self.first, self.act, self.last = first, act, last

    def forward(self, x):
        return self.last(self.act(self.first(x)))


@pytest.mark.parametrize(
    ("crop", "left"),
    [
        (lambda x: x[:, 2:6, 2:6], 4),
        (lambda x: x[:, -6:-2, -6:-2], 4),
        (lambda x: x[..., 4:, 4:, :], 4),
        (lambda x: x[:, 2::2, 2:6], 3),
        (lambda x: x[:, None, 2:6, 2:6].squeeze(1), 4),
        (lambda x: x.transpose(0, 1)[2:6, :, 2:6].transpose(0, 1), 4),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_slices_along_several_axes(crop, left, seed):
    model = Between(nn.Conv2d(3, 8, 3, padding=1), crop, nn.Conv2d(left, 2, 2))
    check(model, image(), seed=seed, least=0.25)


def test_slices_along_two_axes_that_are_both_cut():
    class Window(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 16), nn.Linear(8, 2)
            self.weight = nn.Parameter(torch.randn(16, 16))

        def forward(self, x):
            return self.last(F.linear(self.first(x)[:, 2:12], self.weight[4:12, 2:12]))

    check(Window(), torch.rand(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("taken", [slice(-2), slice(6), slice(None, -2, 1)])
def test_a_slice_of_all_that_is_left(taken):
    model = Between(nn.Linear(3, 8), lambda x: x[:, taken].relu(), nn.Linear(6, 2))
    x, expected = torch.rand(2, 3), copy.deepcopy(model)
    shrink(model, x, units=[{"first.weight": {0: (6, 7)}}])
    assert model.first.out_features == 6
    torch.testing.assert_close(model(x), expected(x))


@pytest.mark.parametrize(
    "opened",
    [
        lambda x: x.unflatten(1, (3, 4)),
        lambda x: x.unflatten(-1, (-1, 4)),
        lambda x: x[:, None].unflatten(2, (3, 4)),
        nn.Unflatten(1, (3, 2, 2)),
    ],
)
def test_an_axis_is_opened_into_literal_sizes(opened):
    last = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    check(Between(nn.Linear(3, 12), opened, last), torch.rand(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("groups", [2, 4])
def test_channels_are_shuffled_by_torch(groups):
    model = Between(nn.Conv2d(3, 8, 3), nn.ChannelShuffle(groups), nn.Conv2d(8, 2, 1))
    check(model, image())


def test_copies_of_a_literal_size_are_joined_to_channels():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 2, 1)

        def forward(self, x):
            x = self.first(x)
            return self.last(torch.cat([x.new_zeros(x.shape[0], 8, 1), x], 2))

    check(Token(), torch.rand(2, 3, 5, dtype=torch.float64))


def test_the_later_pieces_of_a_split():
    class Pieces(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 16), nn.Linear(8, 2)

        def forward(self, x):
            kept, read, left = self.first(x).split([4, 8, 4], -1)
            return kept, self.last(read), left

    x, model = torch.rand(2, 3, dtype=torch.float64), Pieces().double().eval()
    chosen = choose(units(model, x), 0.5, 0)
    masked = masked_like(model, chosen)
    shrink(model, x, units=chosen)
    assert model.last.in_features == 4
    torch.testing.assert_close(model(x), masked(x), rtol=1e-9, atol=1e-9)


def test_an_axis_is_rolled_twice():
    model = Between(nn.Linear(3, 12), lambda x: x.roll((2, 1), (1, -1)), nn.Linear(12, 2))
    check(model, torch.rand(2, 3, dtype=torch.float64), seed=1)


def test_patches_are_folded_again():
    class Folded(nn.Module):
        def forward(self, x):
            return F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2)

    check(Between(nn.Conv2d(3, 8, 3, padding=1), Folded(), nn.Conv2d(8, 2, 1)), image())


def test_a_diagonal_loses_nothing():
    model = Between(nn.Conv2d(3, 8, 3, padding=1), lambda x: x.diagonal(0, 1, 2), nn.Linear(8, 2))
    assert len(units(model.double(), image())) == 0


def test_masked_constants_of_one_axis_that_is_folded_into_another_stay():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.along = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(4, 4)
            self.head = nn.Linear(96, 2)

        def forward(self, x):
            x = self.first(x)
            return x.sigmoid().sum(1), self.head(self.along(x).flatten(1))

    x, model = image(size=4), Folded().double().eval()
    mask = torch.tensor([0, 1, 0, 1])
    masked = copy.deepcopy(model)
    masked.along.bias.data *= mask
    with pytest.warns(PruneWarning, match="2 of 2 masked channels stay"):
        shrink(model, x, {"along": {"bias": mask}})
    assert model.along.out_features == 4
    torch.testing.assert_close(model(x), masked(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pieces", [2, 4, (4,), (2, 6)])
def test_pieces_by_tensor_split(pieces):
    def swapped(x):
        *_, left, right = x.tensor_split(pieces, 1)
        return torch.cat([right, left.relu()], 1)

    width = swapped(torch.ones(1, 8)).shape[1]
    model = Between(nn.Linear(3, 8), swapped, nn.Linear(width, 2))
    check(model, torch.rand(2, 3, dtype=torch.float64))


def test_what_a_padding_crops_stays():
    model = Between(nn.Linear(3, 12), lambda x: F.pad(x, (-2, -1)), nn.Linear(9, 2))
    found = units(model.double(), torch.rand(2, 3, dtype=torch.float64))
    assert [found.axes["first.weight", 0].tolist().count(0), len(found)] == [3, 9]
    check(model, torch.rand(2, 3, dtype=torch.float64))


def test_an_uneven_split_says_what_it_misses():
    model = Between(nn.Linear(3, 16), lambda x: torch.cat(x.split(5, 1)[::-1], 1), nn.Linear(16, 2))
    chosen = [{"first.weight": {0: (0, 1, 2)}}]
    with pytest.raises(SpeedupError, match="split makes 7 pieces where it made 4"):
        shrink(model, torch.rand(2, 3), units=chosen)

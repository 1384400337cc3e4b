"""Removing units equals masking them: architectures, from bottlenecks to bags of words."""

import pytest
import torch
import torch.nn.functional as F
from exactness import check, image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from prune_core.speedup import shrink


class Bottleneck(nn.Module):
    def __init__(self, width, inner, groups=1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.squeeze = nn.Conv2d(inner, inner // 2, 1)
        self.excite = nn.Conv2d(inner // 2, inner, 1)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)))
        gate = self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(y, 1))))
        y = y * torch.sigmoid(gate)
        return F.relu(x + self.bn3(self.conv3(y)))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_residual_bottlenecks_with_squeeze_and_excite(groups):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        Bottleneck(8, 8, groups),
        Bottleneck(8, 16, groups),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    check(model, image(), others=[(image(5),), (image(1, size=13),)])


class ShuffleUnit(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        )
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        left, right = self.stem(x).chunk(2, dim=1)
        y = torch.cat([left, self.branch(right)], 1)
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(y.mean((2, 3)))


def test_channel_shuffle():
    check(ShuffleUnit(), image(), others=[(image(4),)])


class DenseCat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(11)
        self.head = nn.Linear(11 * 4, 3)

    def forward(self, x):
        x = torch.cat([x, self.a(x)], 1)
        x = torch.cat([x, self.b(x)], 1)
        return self.head(F.max_pool2d(self.norm(x), 4).flatten(1))


def test_concatenations_of_concatenations():
    check(DenseCat(), image(), least=0.2, others=[(image(3),)])


class Upsampler(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.norm = nn.GroupNorm(4, 8)
        self.wide = nn.Conv2d(8, 16, 1)
        self.shuffle = nn.PixelShuffle(2)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        y = F.interpolate(self.down(x), scale_factor=2)
        y = self.norm(self.up(y[..., ::2, ::2]))
        return self.head(self.shuffle(F.prelu(self.wide(y), torch.tensor([0.2]).to(y))))


def test_transposed_convolution_group_norm_and_pixel_shuffle():
    check(Upsampler(), image(), least=0.1)


class Literal(nn.Module):
    """A forward with its sizes written into the source."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6 * 9, 4)
        self.gate, self.out = nn.Linear(4, 20), nn.Linear(10, 2)

    def forward(self, x):
        y = F.avg_pool2d(self.stem(x), 2).view(-1, 54)
        left, right = self.gate(self.fc(y)).split(10, dim=1)
        return self.out(left * torch.sigmoid(right))


def test_sizes_written_into_the_source():
    report = check(Literal(), image(), others=[(image(7),)])
    assert {site[1] for site in report.corrections} == {"view", "split"}


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(layer):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(3, 6), nn.Linear(8, 2)
            self.layer = layer(6, 4, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x):
            return self.head(self.layer(self.stem(x))[0])

    check(
        Recurrent(),
        torch.rand(2, 5, 3, dtype=torch.float64),
        others=[(torch.rand(1, 9, 3, dtype=torch.float64),)],
    )


def test_a_long_sequence_through_layers_of_one_width():
    """All of its steps are stacked at once, so that a result has as many operands."""

    class Speaker(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.LSTM(6, 4, num_layers=3, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            steps, (last, _) = self.layers(x)
            return self.head(last[-1]), self.head(steps[:, -1])

    model, x = Speaker().double().eval(), torch.rand(2, 40, 6, dtype=torch.float64)
    names = [name for name, _ in model.layers.named_parameters()]
    masks = {name: torch.ones_like(model.layers.get_parameter(name)) for name in names}
    for mask in masks.values():
        mask[1::4] = 0
    with torch.no_grad():
        for name, mask in masks.items():
            model.layers.get_parameter(name).mul_(mask)
        expected = model(x)
    shrink(model, x, {"layers": masks})
    assert model.layers.hidden_size == 3
    assert model.layers.weight_ih_l2.shape == (12, 3)
    torch.testing.assert_close(model(x), expected)


def test_weight_norm_and_a_layer_used_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.utils.parametrizations.weight_norm(nn.Linear(3, 6))
            self.shared, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(F.relu(self.shared(F.relu(self.shared(self.stem(x))))))

    check(Twice(), torch.rand(2, 3, dtype=torch.float64))


@st.composite
def networks(draw):
    """A random stack of convolutions with skips, norms, concatenations and pools."""
    widths = draw(st.lists(st.sampled_from([2, 4, 6]), min_size=2, max_size=5))
    kinds = [
        draw(st.sampled_from(["conv", "norm", "residual", "cat", "depthwise", "gate", "groups"]))
        for _ in widths
    ]
    return list(zip(kinds, widths, strict=True))


class Stack(nn.Module):
    def __init__(self, description):
        super().__init__()
        self.kinds, self.layers, width = [], nn.ModuleList(), 3
        for kind, wanted in description:
            if kind == "norm":
                layer = nn.BatchNorm2d(width)
            elif kind in ("residual", "gate"):
                layer = nn.Conv2d(width, width, 3, padding=1)
            elif kind == "depthwise":
                layer = nn.Conv2d(width, width * 2, 3, padding=1, groups=width)
                wanted = width * 2
            elif kind == "groups" and width % 2 == 0:
                layer = nn.Conv2d(width, wanted, 1, groups=2)
            else:
                layer = nn.Conv2d(width, wanted, 1)
            self.kinds.append(kind)
            self.layers.append(layer)
            if kind not in ("norm", "residual", "gate"):
                width = width + wanted if kind == "cat" else wanted
        self.head = nn.Linear(width * 4, 2)

    def forward(self, x):
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            y = layer(x)
            if kind == "residual":
                x = F.relu(x + y)
            elif kind == "gate":
                x = x * torch.sigmoid(y)
            elif kind == "cat":
                x = torch.cat([x, F.relu(y)], 1)
            else:
                x = F.leaky_relu(y)
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.floats(0.1, 0.9), st.integers(0, 1000))
def test_any_units_of_any_stack(description, share, seed):
    check(Stack(description), image(2, 3, 4), share=share, seed=seed, least=0)


class Edges(nn.Module):
    """Nodes that add up what the edges bring them, weighed by their share of it."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 12), nn.Linear(12, 2)
        self.weigh = nn.Parameter(torch.randn(1, 4, 3))

    def forward(self, x, edges):
        source, target = edges
        x = self.first(x).view(-1, 4, 3)
        share = (x * self.weigh).sum(-1).sigmoid()[source]
        where = target[:, None].expand_as(share)
        whole = x.new_zeros(len(x), share.shape[1]).scatter_add_(0, where, share)
        brought = (share / (whole[target] + 1e-9)).unsqueeze(-1) * x[source]
        where = target[:, None, None].expand_as(brought)
        most = torch.zeros_like(x).scatter_reduce(0, where, brought, "amax", include_self=False)
        x = most + torch.zeros_like(x).scatter_add(0, where, brought)
        return self.head(x.flatten(1))


def test_what_edges_bring_to_nodes():
    edges = torch.tensor([[0, 1, 2, 2, 3], [1, 0, 0, 3, 3]])
    check(Edges(), torch.rand(4, 3, dtype=torch.float64), edges)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_words(mode):
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.bags, self.head = nn.EmbeddingBag(7, 8, mode=mode), nn.Linear(8, 2)

        def forward(self, words, begins):
            return self.head(self.bags(words, begins))

    words = torch.tensor([1, 2, 3, 4, 5, 6])
    report = check(Bags(), words, torch.tensor([0, 2, 5]), others=[(words, torch.tensor([0]))])
    assert report.model.bags.embedding_dim == 4


def test_a_bilinear_layer():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(3, 4), nn.Linear(8, 2)
            self.both = nn.Bilinear(6, 4, 8)

        def forward(self, x, y):
            return self.c(self.both(self.a(x), self.b(y)).relu())

    x, y = torch.rand(2, 5, 3, dtype=torch.float64)
    both = check(Pairs(), x, y).model.both
    assert (both.in1_features, both.in2_features, both.out_features) == (3, 2, 4)


@pytest.mark.parametrize("rows", [3, 30])  # torch takes another way where there are many
def test_distances_to_a_table_of_codes(rows):
    class Codes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.codes = nn.Linear(3, 8), nn.Parameter(torch.randn(rows, 8))

        def forward(self, x):
            return torch.cdist(self.first(x), self.codes)

    check(Codes(), torch.rand(30, 3, dtype=torch.float64), others=[(torch.rand(4, 3).double(),)])


class Spectral(nn.Module):
    """Channels that are mixed in the frequencies, and filtered there one by one."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 1)
        self.mix = nn.Parameter(torch.randn(8, 8, 2))
        self.filters = nn.Parameter(torch.randn(8, 6, 4, 2))

    def forward(self, x):
        x = torch.fft.rfft2(self.first(x), norm="ortho")
        x = torch.einsum("bixy,io->boxy", x, torch.view_as_complex(self.mix))
        x = torch.fft.irfft2(x * torch.view_as_complex(self.filters), norm="ortho")
        turned = torch.fft.fft(x, dim=2)
        return self.head(x + turned.real * turned.imag + torch.polar(x, x).abs())


def test_fourier_transforms_and_complex_numbers():
    check(Spectral(), torch.rand(2, 1, 6, 6, dtype=torch.float64))


def test_a_recurrence_that_begins_with_zeros():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = 6
            self.gates, self.head = nn.Linear(3 + 6, 4 * 6), nn.Linear(6, 2)

        def forward(self, x):
            h = torch.zeros(x.shape[0], self.hidden, dtype=x.dtype)
            c = torch.zeros_like(h)
            for at in range(x.shape[1]):
                gates = self.gates(torch.cat([x[:, at], h], 1))
                i, f, o, g = gates.split(self.hidden, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            return self.head(h)

    x = torch.rand(2, 3, 3, dtype=torch.float64)
    report = check(Cell(), x, others=[(torch.rand(5, 7, 3, dtype=torch.float64),)])
    assert ("", "hidden", 6, 3) in report.attributes


@pytest.mark.parametrize("groups", [2, 4])
def test_a_transposed_convolution_in_groups(groups):
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 16, 2, groups=groups)),
        *(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 2, 1)),
    )
    check(model, torch.rand(2, 3, 4, 4, dtype=torch.float64))

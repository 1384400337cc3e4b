"""Models whose weights are made of others: standardised, shared, tied or computed."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from sketches.layers import conv


class StandardisedConv(nn.Conv2d):
    """A convolution whose filters have mean zero and variance one."""

    def forward(self, x):
        weight = self.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        spread = weight.var((1, 2, 3), keepdim=True, unbiased=False)
        weight = (weight - mean) / torch.sqrt(spread + 1e-6)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class WeightStandardisation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            StandardisedConv(3, 32, 3),
            StandardisedConv(32, 32, 3),
            StandardisedConv(32, 16, 1),
        )

    def forward(self, x):
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))


class GainedConv(nn.Conv2d):
    """A convolution whose filters are normalised by a batch norm and given a gain."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)
        self.scale = self.weight[0].numel() ** -0.5

    def forward(self, x):
        flat = self.weight.reshape(1, self.out_channels, -1)
        gain = (self.gain * self.scale).view(-1)
        weight = F.batch_norm(flat, None, None, weight=gain, training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


class GainedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            GainedConv(3, 32, 3),
            GainedConv(32, 32, 3),
            GainedConv(32, 16, 1),
        )

    def forward(self, x):
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))


class WeightNorms(nn.Module):
    def __init__(self):
        super().__init__()
        norm = parametrizations.weight_norm
        self.a, self.b, self.c = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 16, 1)
        self.a, self.b, self.c = norm(self.a), norm(self.b), norm(self.c)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class SpectralNorms(nn.Module):
    def __init__(self):
        super().__init__()
        norm = parametrizations.spectral_norm
        self.a, self.b = norm(nn.Conv2d(3, 32, 3)), norm(nn.Conv2d(32, 32, 3))
        self.c = norm(nn.Conv2d(32, 16, 1))

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class Scaled(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(count, 1, 1, 1) + 0.5)

    def forward(self, weight):
        return weight * self.scale


class OwnParametrisation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 3)
        parametrize.register_parametrization(self.a, "weight", Scaled(32))
        parametrize.register_parametrization(self.b, "weight", Scaled(16))

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


class SharedBlocks(nn.Module):
    """One block used three times, another twice at other widths of the same stream."""

    def __init__(self):
        super().__init__()
        self.stem, self.shared = conv(3, 32), conv(32, 32)
        self.other = nn.Sequential(conv(32, 48, 1), conv(48, 32, 1))

    def forward(self, x):
        x = self.stem(x)
        for _ in range(3):
            x = x + self.shared(x)
        return self.other(self.other(x))


class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(40, 32), nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)
        self.head = nn.Linear(32, 40, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        x = self.table(tokens)
        return self.head(x + self.down(F.gelu(self.up(self.norm(x)))))


class Hypernetwork(nn.Module):
    """The filters are made by another layer from what it sees."""

    def __init__(self):
        super().__init__()
        self.stem, self.see = conv(3, 16), nn.Linear(16, 16 * 9)
        self.out, self.wide = conv(16, 64), conv(64, 16)

    def forward(self, x):
        x = self.stem(x)
        filters = self.see(x.mean((0, 2, 3))).view(16, 1, 3, 3)
        return self.wide(self.out(F.conv2d(x, filters, padding=1, groups=16)))

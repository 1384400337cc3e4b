"""Models that move channels about: shuffled, split, joined, folded into pixels."""

import torch
import torch.nn.functional as F
from torch import nn

from sketches.layers import conv


class Shuffle(nn.Module):
    def __init__(self, width=32, groups=2):
        super().__init__()
        self.stem = conv(3, width)
        self.left = conv(width // 2, width // 2, groups=width // 2)
        self.right = conv(width // 2, width // 2, 1)
        self.groups, self.out = groups, conv(width, 16, 1)

    def forward(self, x):
        kept, worked = self.stem(x).chunk(2, 1)
        y = torch.cat([kept, self.right(self.left(worked))], 1)
        b, c, h, w = y.shape
        y = y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.out(y)


class TorchShuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 32), conv(32, 32, groups=4)
        self.shuffle, self.c = nn.ChannelShuffle(4), conv(32, 16, groups=4)

    def forward(self, x):
        return self.c(self.shuffle(self.b(self.a(x))))


class UnevenSplit(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 40)
        self.small, self.middle, self.large = conv(8, 8), conv(12, 12), conv(20, 16)

    def forward(self, x):
        a, b, c = self.stem(x).split([8, 12, 20], 1)
        a = self.small(a)
        b = self.middle(b)
        return torch.cat([self.large(c), b, a], 1)


class ConcatOfConcats(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(19, 16), conv(35, 16)
        self.norm, self.out = nn.BatchNorm2d(54), conv(54, 24, 1)

    def forward(self, x):
        one = torch.cat([x, self.a(x)], 1)
        two = torch.cat([one, self.b(one)], 1)
        three = torch.cat([self.c(two), two, x], 1)
        return self.out(F.relu(self.norm(three)))


class Focus(nn.Module):
    """Space folded into channels by slices."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = conv(3, 12), conv(48, 32, 1)
        self.last = conv(32, 16)

    def forward(self, x):
        y = self.stem(x)
        y = [y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]]
        return self.last(self.out(torch.cat(y, 1)))


class PixelShuffles(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.wide = conv(3, 16), conv(64, 64)
        self.up, self.last = conv(64, 64), conv(16, 16)

    def forward(self, x):
        y = self.wide(F.pixel_unshuffle(self.down(x), 2))
        return self.last(F.pixel_shuffle(self.up(y), 2))


class Windows(nn.Module):
    """Space cut into shifted windows and put together again."""

    def __init__(self, width=32, heads=4, window=4):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 1), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(heads, window**2, window**2))
        self.heads, self.window = heads, window
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        n = self.window
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(b, h // n, n, w // n, n, c).transpose(2, 3).reshape(-1, n * n, c)
        q, k, v = (
            self.qkv(y).reshape(-1, n * n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        )
        scores = q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5 + self.bias
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, n * n, c))
        y = y.view(b, h // n, w // n, n, n, c).transpose(2, 3).reshape(b, h, w, c)
        x = x + torch.roll(y, (2, 2), (1, 2))
        return (x + self.mlp(x)).permute(0, 3, 1, 2)

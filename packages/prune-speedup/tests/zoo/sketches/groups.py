"""Models that work on groups of channels, or weigh channels by what they hold."""

import torch
import torch.nn.functional as F
from torch import nn

from sketches.layers import conv


class DepthwiseThenGrouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = conv(3, 32), conv(32, 64, groups=32)
        self.grouped, self.point = conv(64, 32, groups=4), conv(32, 32, 1)
        self.last = conv(32, 16, groups=2)

    def forward(self, x):
        return self.last(self.point(self.grouped(self.depthwise(self.stem(x)))))


class GroupNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 16, 1)
        self.norms = nn.ModuleList(
            [nn.GroupNorm(8, 32), nn.GroupNorm(1, 32), nn.InstanceNorm2d(16)]
        )

    def forward(self, x):
        for layer, norm in zip((self.a, self.b, self.c), self.norms, strict=True):
            x = F.silu(norm(layer(x)))
        return x


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.expand, self.deep = conv(3, 16), conv(16, 64, 1), conv(64, 64, groups=64)
        self.squeeze, self.excite = nn.Conv2d(64, 16, 1), nn.Conv2d(16, 64, 1)
        self.project, self.norm = nn.Conv2d(64, 16, 1, bias=False), nn.BatchNorm2d(16)

    def forward(self, x):
        x = self.stem(x)
        y = self.deep(self.expand(x))
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1))))
        return x + self.norm(self.project(y * torch.sigmoid(gate)))


class ChannelAttention(nn.Module):
    """A gate by a one-dimensional convolution over the channels, which must then all stay."""

    def __init__(self):
        super().__init__()
        self.stem, self.slide = conv(3, 16), nn.Conv1d(1, 1, 3, padding=1)
        self.wide, self.last = conv(16, 64), conv(64, 16)

    def forward(self, x):
        y = self.stem(x)
        gate = self.slide(y.mean((2, 3)).unsqueeze(1)).sigmoid()
        return self.last(self.wide(y * gate.view(y.shape[0], -1, 1, 1)))


class GatedUnits(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 32, 3), nn.GLU(1)
        self.up, self.down = nn.Linear(16, 96), nn.Linear(48, 16)
        self.left, self.right, self.out = nn.Linear(16, 40), nn.Linear(16, 40), nn.Linear(40, 16)

    def forward(self, x):
        x = self.gate(self.stem(x)).permute(0, 2, 3, 1)
        left, right = self.up(x).chunk(2, -1)
        x = x + self.down(F.silu(left) * right)
        x = x + self.out(self.left(x) * torch.tanh(self.right(x)))
        return x.permute(0, 3, 1, 2)


class SelectiveKernel(nn.Module):
    """Branches stacked, weighed by a softmax across the branches, and summed."""

    def __init__(self, width=32):
        super().__init__()
        self.stem = conv(3, width)
        self.branches = nn.ModuleList([conv(width, width, k) for k in (1, 3)])
        self.squeeze, self.excite = conv(width, 8, 1), nn.Conv2d(8, 2 * width, 1)
        self.out = conv(width, 16)

    def forward(self, x):
        x = self.stem(x)
        y = torch.stack([branch(x) for branch in self.branches], 1)
        weights = self.excite(self.squeeze(y.sum(1).mean((2, 3), keepdim=True)))
        weights = weights.view(x.shape[0], 2, x.shape[1], 1, 1).softmax(1)
        return self.out((y * weights).sum(1))

"""Models with a forward of an unusual shape: nested, branching, in place, channels last."""

import torch
import torch.nn.functional as F
from torch import nn

from sketches.layers import conv


class NestedOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv(3, 32), conv(32, 32), conv(32, 16)
        self.boxes, self.classes = nn.Conv2d(16, 4, 1), nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.a(x)
        found = {"boxes": self.boxes(self.b(y))}
        return {"scores": {"all": self.classes(y.mean((2, 3)))}, "found": [found, (x.mean(),)]}


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.middle = conv(3, 16), conv(16, 32), conv(32, 64)
        self.up2, self.up1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.merge2, self.merge1 = conv(64, 32), conv(32, 16)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.middle(F.max_pool2d(two, 2))
        x = self.merge2(torch.cat([self.up2(x), two], 1))
        return self.out(self.merge1(torch.cat([self.up1(x), one], 1)))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 1), conv(32, 16)

    def forward(self, x):
        x = F.relu_(self.a(x))
        y = self.b(x)
        y += x
        y.mul_(0.5).clamp_(-1)
        return self.c(y)


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv(3, 32), conv(32, 32), conv(32, 16)

    def forward(self, x):
        x = self.stem(x)
        while x.abs().mean() > 10:
            x = x / 2
        return self.b(self.a(x) if x.sum() > 0 else x)


class ResNet(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.stem = conv(3, width)
        self.one, self.two = ResBlock(width, width), ResBlock(width, 2 * width, 2)
        self.three = ResBlock(2 * width, 2 * width)

    def forward(self, x):
        return self.three(self.two(self.one(self.stem(x))))


class ResBlock(nn.Module):
    def __init__(self, width, out, stride=1):
        super().__init__()
        self.a = conv(width, out, stride=stride)
        self.b, self.norm = nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.skip = nn.Conv2d(width, out, 1, stride) if width != out else nn.Identity()

    def forward(self, x):
        return F.relu(self.norm(self.b(self.a(x))) + self.skip(x))


class Mixer(nn.Module):
    """Layers that mix along the positions take turns with layers along the channels."""

    def __init__(self, width=32, places=16):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 2, 2)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.tokens = nn.Sequential(nn.Linear(places, 64), nn.GELU(), nn.Linear(64, places))
        self.channels = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norms[1](x))
        return x.transpose(1, 2).unflatten(2, (4, 4))


class ChannelsLast(nn.Module):
    """ConvNeXt's block: a norm over the last axis and a scale of the whole branch."""

    def __init__(self, width=32):
        super().__init__()
        self.stem, self.deep = (
            nn.Conv2d(3, width, 2, 2),
            nn.Conv2d(width, width, 3, 1, 1, groups=width),
        )
        self.norm, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 96),
            nn.Linear(96, width),
        )
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)

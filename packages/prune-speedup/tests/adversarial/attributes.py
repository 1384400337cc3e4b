"""Numbers that a module keeps: the one that is a size, and others that happen to be equal."""

import math

import torch
import torch.nn.functional as F
from adversaries import adversary, series, tokens
from torch import nn


class Attention(nn.Module):
    """Heads by hand; what else the number stands for is up to the subclass."""

    def __init__(self, width=16, heads=4):
        super().__init__()
        self.heads = heads
        self.table, self.qkv = nn.Embedding(20, width), nn.Linear(width, 3 * width)
        self.out, self.head = nn.Linear(width, width), nn.Linear(width, 5)

    def attend(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))

    def forward(self, words):
        x = self.table(words)
        return self.head(x + self.attend(x))


@adversary(tokens(), tokens(3, 9), tokens(2, 3))
class HeadsAndWindow(Attention):
    """The window is as long as there are heads, and only longer inputs are cut into windows."""

    def __init__(self):
        super().__init__()
        self.window = 4

    def forward(self, words):
        x = self.table(words)
        if words.shape[1] > 6:
            pieces = [self.attend(piece) for piece in x.split(self.window, 1)]
            return self.head(x + torch.cat(pieces, 1))
        return self.head(x + self.attend(x))


@adversary(tokens(), tokens(3, 4), lambda: {"words": tokens()(), "depth": 4})
class HeadsAndEvery(Attention):
    """Every so many turns something is added."""

    def __init__(self):
        super().__init__()
        self.every = 4

    def forward(self, words, depth=1):
        x = self.table(words)
        for turn in range(depth):
            x = x + self.attend(x)
            if turn % self.every == 3:
                x = x * 0.5
        return self.head(x)


@adversary(tokens(), tokens(3, 5))
class HeadsAndPoolInTraining(Attention):
    def __init__(self):
        super().__init__()
        self.pool = 4

    def forward(self, words):
        x = self.table(words)
        x = x + self.attend(x)
        if self.training:
            x = F.avg_pool1d(x.transpose(1, 2), self.pool, 1).transpose(1, 2)
        return self.head(x)


@adversary(tokens(), tokens(3, 5))
class HeadsAreAlsoTurns(Attention):
    """The number of heads is the number of rounds, too."""

    def forward(self, words):
        x = self.table(words)
        for _ in range(self.heads):
            x = x + self.attend(x) * 0.5
        return self.head(x)


@adversary(tokens(), tokens(3, 5))
class HeadsAreAlsoAScaleInTraining(Attention):
    def forward(self, words):
        x = self.table(words)
        y = self.attend(x)
        return self.head(x + (y * self.heads if self.training else y))


@adversary(tokens(), lambda: {"words": tokens()(), "sharp": True})
class HeadsAreAlsoAScaleWhenAsked(Attention):
    def forward(self, words, sharp=False):
        x = self.table(words)
        y = self.attend(x)
        return self.head(x + (y * self.heads if sharp else y))


@adversary(tokens(), lambda: (tokens()(), torch.rand(2, 6, 1)), lambda: (tokens(3, 2)(), None))
class HeadsAreAlsoAScaleWhenGiven(Attention):
    def forward(self, words, weights=None):
        x = self.table(words)
        y = self.attend(x)
        if weights is not None:
            y = y * weights * self.heads
        return self.head(x + y)


@adversary(tokens(), tokens(4, 3))
class WidthIsAlsoAScale(nn.Module):
    """A width that is told to a view and, by way of its root, to a product."""

    def __init__(self, width=8):
        super().__init__()
        self.width = width
        self.table, self.up = nn.Embedding(20, 6), nn.Linear(6, width)
        self.head = nn.Linear(width, 5)

    def forward(self, words):
        x = self.up(self.table(words)) * math.sqrt(self.width)
        return self.head(x.view(*words.shape, self.width).tanh())


@adversary(series(), series(3, 4), lambda: {"x": series()(), "soft": True})
class WidthIsAlsoATemperature(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.width, self.first, self.head = width, nn.Linear(3, width), nn.Linear(width, 4)

    def forward(self, x, soft=False):
        x = self.first(x).view(*x.shape[:2], self.width).relu()
        x = self.head(x)
        return (x / self.width).softmax(-1) if soft else x


@adversary(series(), series(3, 4))
class SizesInATuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.sizes, self.also = (4, 6), (4, 6)
        self.first, self.head = nn.Linear(3, 24), nn.Linear(24, 4)

    def forward(self, x):
        x = self.first(x).view(*x.shape[:2], *self.sizes).softmax(-1).flatten(2)
        return self.head(x) * self.also[0]


@adversary(series(), series(3, 4))
class SizesInADict(nn.Module):
    def __init__(self):
        super().__init__()
        self.options = {"heads": 4, "window": 4, "inner": {"width": 6}}
        self.first, self.head = nn.Linear(3, 24), nn.Linear(24, 4)

    def forward(self, x):
        sizes = self.options["heads"], self.options["inner"]["width"]
        x = self.first(x).view(*x.shape[:2], *sizes).softmax(-1).flatten(2)
        if self.training:
            x = x * self.options["window"]
        return self.head(x)


class Settings:
    def __init__(self, heads=4, layers=4):
        self.heads, self.layers = heads, layers


@adversary(tokens(), tokens(4, 3))
class SizesInAConfig(Attention):
    """Another object, which several modules share, knows the sizes."""

    def __init__(self):
        super().__init__()
        self.config = Settings()

    def attend(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        y = self.out(y.transpose(1, 2).flatten(2))
        return y * self.config.layers if self.training else y


@adversary(tokens(), tokens(4, 3))
class SizeOfAParent(nn.Module):
    """A child is told the size by its parent, and has one of its own that is equal."""

    def __init__(self):
        super().__init__()
        self.heads, self.head, self.table = 4, nn.Linear(16, 5), nn.Embedding(20, 16)
        self.child = Told(16)

    def forward(self, words):
        x = self.table(words)
        return self.head(x + self.child(x, self.heads))


class Told(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.steps, self.qkv, self.out = 4, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, heads):
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if t < self.steps:
            y = y * t / self.steps
        return self.out(y)


@adversary(tokens(2, 6), tokens(4, 3), tokens(2, 8))
class TwoKindsOfHeads(nn.Module):
    """Two layers of one kind, with numbers that are equal before and not after."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 16), nn.Linear(16, 5)
        self.a, self.b = Told(16), Told(16)
        self.heads = [4, 4]

    def forward(self, words):
        x = self.table(words)
        x = x + self.a(x, self.heads[0])
        return self.head(x + self.b(x, self.heads[1]))


class Property(nn.Module):
    """Heads that are worked out when they are asked for."""

    def __init__(self, width=16, each=4):
        super().__init__()
        self.width, self.each = width, each
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    @property
    def heads(self):
        return self.width // self.each

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, self.each).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, self.width)
        return self.out(y) * (self.each / 4)


@adversary(tokens(), tokens(4, 3))
class HeadsOfAProperty(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.attention, self.head = nn.Embedding(20, 16), Property(), nn.Linear(16, 5)

    def forward(self, words):
        x = self.table(words)
        return self.head(x + self.attention(x))


@adversary(series(), series(3, 4))
class CounterThatIsEqual(nn.Module):
    """A counter that happens to stand at the width."""

    def __init__(self):
        super().__init__()
        self.seen, self.width = 8, 8
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x).view(*x.shape[:2], self.width).tanh()
        self.seen += 1
        return self.head(x) * (2 if self.seen > 8 else 1)


@adversary(series(), series(3, 4), lambda: {"x": series()(), "classes": True})
class WidthIsAlsoTheClasses(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.width, self.classes = width, width
        self.first, self.head = nn.Linear(3, width), nn.Linear(width, width)

    def forward(self, x, classes=False):
        x = self.head(self.first(x).view(-1, self.width).relu())
        return F.one_hot(x.argmax(-1), self.classes) if classes else x


@adversary(series(), series(3, 4))
class OneNumberForTwoWidths(nn.Module):
    """One attribute is the width of what shrinks and of what cannot."""

    def __init__(self, width=8):
        super().__init__()
        self.width = width
        self.first, self.second = nn.Linear(3, width), nn.Linear(width, width)

    def forward(self, x):
        y = self.first(x).view(-1, self.width).relu()
        return self.second(y).view(-1, 2, self.width // 2)


@adversary(series(), series(3, 4))
class FloatOfASize(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.width, self.scale = width, float(width)
        self.first, self.head = nn.Linear(3, width), nn.Linear(width, 2)

    def forward(self, x):
        x = self.first(x).view(*x.shape[:2], int(self.width))
        return self.head(x / self.scale + x * (1 / float(x.shape[-1])))


@adversary(series(), series(3, 4))
class GivenOnlyOnce(nn.Module):
    """A default of a method, and a name of the module, hold the size."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def apart(self, x, pieces=4):
        return x.view(*x.shape[:-1], pieces, -1)

    def forward(self, x):
        return self.head(self.apart(self.first(x)).flatten(2)[..., :_WIDTH])


_WIDTH = 8

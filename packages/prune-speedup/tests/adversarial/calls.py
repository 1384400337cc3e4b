"""Sizes in the source, in calls that other runs make more often, less often or not at all."""

import torch
import torch.nn.functional as F
from adversaries import adversary, image, series, tokens
from torch import nn
from torch.utils.checkpoint import checkpoint


@adversary(series(), series(4, 9), series(3, 1))
class StepsWithALiteral(nn.Module):
    """A recurrence over as many steps as there are, with a size in its loop and one behind it."""

    def __init__(self):
        super().__init__()
        self.inside, self.state, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        hidden = torch.zeros(x.shape[0], 8, dtype=x.dtype)
        for step in x.unbind(1):
            hidden = torch.tanh(self.inside(step) + self.state(hidden)).view(-1, 8)
        return self.head(hidden.reshape(x.shape[0], 8))


@adversary(series(), series(4, 9), series(3, 2))
class StepsWithAScale(nn.Module):
    """Each step is scaled by a number made of the width."""

    def __init__(self):
        super().__init__()
        self.inside, self.state, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.inside(x[:, 0])
        for at in range(1, x.shape[1]):
            hidden = self.inside(x[:, at]) + self.state(hidden) * hidden.shape[-1] ** -0.5
        return self.head(hidden * hidden.shape[-1])


@adversary(series(), series(3, 8))
class StepsInAComprehension(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 12), nn.Linear(12, 2)

    def forward(self, x):
        steps = [self.first(step).view(-1, 3, 4) * 2 for step in x.unbind(1)]
        return self.head(sum(step.reshape(-1, 12).tanh() for step in steps))


@adversary(series(length=0), series(5, 0))
class AuxiliaryProductInTraining(nn.Module):
    """Stochastic depth of a kind: a product that only a training model computes."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        if self.training:
            x = x * 1.5
        y = self.second(x.relu()) * (x.shape[-1] ** -0.5)
        return self.head((x + y).view(-1, 8))


@adversary(series(length=0), series(5, 0))
class LiteralInTraining(nn.Module):
    """Training reshapes first, by a size that is right whatever goes."""

    def __init__(self):
        super().__init__()
        self.early, self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.early(x)
        if self.training:
            x = x.view(-1, x.shape[-1]).view(len(x), -1)
        return self.head(self.first(x).view(-1, 2, 4).flatten(1))


@adversary(series(length=0), series(5, 0))
class AuxiliaryHeadInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head, self.more = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        if self.training:
            early = self.more(x.view(-1, 8))
            return self.head(x.relu().view(-1, 8)), early
        return self.head(x.relu().view(-1, 8))


@adversary(
    series(),
    lambda: (series()(), torch.rand(2, 5, 1, dtype=torch.float64)),
    lambda: {"x": series(3, 4)(), "scale": 2.0},
    lambda: {"x": series(3, 4)(), "twice": True},
)
class OptionalArguments(nn.Module):
    """What is not given to the example shifts every later call of the same function."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x, mask=None, scale=None, twice=False):
        x = self.first(x)
        if mask is not None:
            x = x * mask
        if scale is not None:
            x = x * scale
        y = self.second(x.tanh()) * x.shape[-1] ** -0.5
        if twice:
            y = y * 2
        return self.head((x + y * x.shape[-1]).view(*x.shape[:-1], 8))


@adversary(tokens(), tokens(3, 4), lambda: {"words": tokens()(), "weights": True})
class AttentionTwoWays(nn.Module):
    """Weights are worked out by hand where they are wanted, with a scale read off a tensor."""

    def __init__(self, width=16, heads=4):
        super().__init__()
        self.table, self.qkv = nn.Embedding(20, width), nn.Linear(width, 3 * width)
        self.out, self.head, self.heads = nn.Linear(width, width), nn.Linear(width, 5), heads

    def forward(self, words, weights=False):
        x = self.table(words)
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if weights:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            y = scores.softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.head(x + self.out(y.transpose(1, 2).reshape(b, t, c)))


def _loss(output):
    return output.square().sum()


def _gradients(model, inputs):
    """Gradients by way of the recomputation, summed where channels may have gone."""
    model.zero_grad()
    x = inputs.clone().requires_grad_()
    _loss(model(x)).backward()
    return x.grad


@adversary(series(), series(3, 7), gradients=_gradients)
class CheckpointedPart(nn.Module):
    """A part of the forward runs once more in the backward pass, outside any module's call."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def _part(self, x):
        return self.second(x.tanh()) * x.shape[-1] ** -0.5 + x.view(-1, 8).view(x.shape)

    def forward(self, x):
        x = self.first(x)
        x = checkpoint(self._part, x, use_reentrant=False) if self.training else self._part(x)
        return self.head(x * 0.5)


@adversary(series(), series(3, 7), gradients=_gradients)
class CheckpointedModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.steps = nn.ModuleList(Scaled(8) for _ in range(3))

    def forward(self, x):
        x = self.first(x)
        for step in self.steps:
            x = checkpoint(step, x, use_reentrant=False) if self.training else step(x)
        return self.head(x)


class Scaled(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return x + self.layer(x.tanh()) * x.shape[-1] ** -0.5


@adversary(lambda: series()() * 0.1, lambda: series()() * 30, lambda: series(3, 4)() * 300)
class UntilSmallEnough(nn.Module):
    """How often depends on the numbers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        while x.abs().max() > 5:
            x = x * 0.5
        x = x + self.second(x) * x.shape[-1] ** -0.5
        return self.head(x.view(*x.shape[:2], 2, 4).flatten(2))


@adversary(series(2, 4), series(2, 7), series(1, 1))
class HalvesOfHalves(nn.Module):
    """A recursion as deep as the input is long."""

    def __init__(self):
        super().__init__()
        self.first, self.join, self.head = nn.Linear(3, 8), nn.Linear(16, 8), nn.Linear(8, 2)

    def tree(self, x):
        if x.shape[1] == 1:
            return x.view(-1, 8)
        half = x.shape[1] // 2
        both = torch.cat([self.tree(x[:, :half]), self.tree(x[:, half:])], -1)
        return self.join(both * x.shape[-1] ** -0.5).tanh()

    def forward(self, x):
        return self.head(self.tree(self.first(x)).view(-1, 8))


@adversary(series(2, 3), series(2, 6))
class BlockAsOftenAsThereAreSteps(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.block = Scaled(8)

    def forward(self, x):
        steps = x.shape[1]
        x = self.first(x)
        for _ in range(steps):
            x = self.block(x.view(x.shape[0], -1, 8))
        return self.head(x)


def merged(x, width):
    return x.reshape(*x.shape[:-2], width)


def apart(x, pieces):
    return x.reshape(*x.shape[:-1], pieces, 4)


@adversary(series(), series(3, 2), lambda: {"x": series()(), "more": True})
class LiteralsOfAHelper(nn.Module):
    """Functions beside the class hold the sizes, and are called from several places."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, x, more=False):
        x = merged(apart(self.first(x), 2), 8)
        if more:
            x = merged(apart(x, 2), 8)
        return self.head(merged(apart(self.second(x.relu()), 4), 16))


@adversary(series(), series(3, 2))
class LiteralsOfAnInnerFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        def spread(y):
            return y.unflatten(-1, (2, 4)).flatten(-2) * scale

        x = self.first(x)
        scale = x.shape[-1] ** -0.5
        both = [spread(layer(x)) for layer in (self.second, torch.tanh)]
        return self.head(sum(both))


@adversary(series(), series(3, 6))
class AnotherSizeEachTime(nn.Module):
    """One place in the source is told one size after the other."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.wide, self.back = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        for layer, width in ((self.first, 8), (self.wide, 16), (self.back, 8)):
            x = layer(x).view(*x.shape[:-1], 2, width // 2).flatten(-2).tanh()
        return self.head(x)


@adversary(series(), series(3, 6))
class OneSizeForTwoThings(nn.Module):
    """The same number at the same place is a width that shrinks, and then one that stays."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 8)

    def forward(self, x):
        for layer in (self.first, self.second):
            x = layer(x).view(*x.shape[:-1], 2, 4).flatten(-2).tanh()
        return x


@adversary(series(), embed=lambda model, x: model.embed(x), length=lambda m, x: m.embed(x[:, :2]))
class AMethodOfItsOwn(nn.Module):
    """Users call more than the forward."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def embed(self, x):
        x = self.first(x)
        return self.head(x + self.second(x).view(*x.shape[:2], 8) * x.shape[-1] ** -0.5)

    def forward(self, x):
        return self.embed(x) + 1


@adversary(series(), alone=lambda model, x: model.head(model.part(x)))
class APartUsedAlone(nn.Module):
    """A part of the model is run without the rest of it."""

    def __init__(self):
        super().__init__()
        self.part, self.head = nn.Sequential(nn.Linear(3, 6), Mixed(6)), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.part(x))


class Mixed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, 8), nn.Linear(8, width)

    def forward(self, x):
        y = self.up(x)
        return self.down(y.view(*y.shape[:-1], 2, 4).flatten(-2) * y.shape[-1] ** -0.5)


@adversary(image(), image(3, 6), image(1, 11))
class WeightsOfEachSample(nn.Module):
    """A size that is a multiple of the batch."""

    def __init__(self):
        super().__init__()
        self.route, self.head = nn.Linear(3, 4), nn.Conv2d(16, 2, 1)
        self.weights = nn.Parameter(torch.randn(4, 16, 3, 3, 3))

    def forward(self, x):
        b, c, h, w = x.shape
        mixed = self.route(x.mean((2, 3))).sigmoid() @ self.weights.view(4, -1)
        x = F.conv2d(x.reshape(1, b * c, h, w), mixed.view(b * 16, c, 3, 3), padding=1, groups=b)
        return self.head(x.view(b, 16, h, w))


@adversary(series(2, 4), series(2, 9), series(5, 1))
class TimesTheLength(nn.Module):
    """A size that is a multiple of the length."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(4, 6)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        b, t, _ = x.shape
        rows = self.first(x).view(b, t * 2, 4)
        rows = self.second(rows) * (rows.shape[1] / t)
        return self.head(rows.reshape(b, t, 2 * 6))


@adversary(series(2, 4), series(2, 9), series(5, 1))
class HeadsAlongTheLength(nn.Module):
    """Heads stand beside the steps, in a size that is made of both."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 16), nn.Linear(16, 2)

    def forward(self, x):
        b, t, _ = x.shape
        x = self.first(x).view(b, t * 4, 4)
        x = x.softmax(-1).view(b, t, 4, 4) * 4
        return self.head(x.reshape(b, t, 16))


@adversary(series(), series(3, 4))
class TwoPlacesOnALine(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 8), nn.Linear(3, 16), nn.Linear(8, 2)
        self.back = nn.Linear(16, 8)

    def forward(self, x):
        # fmt: off
        a, b = self.a(x).view(*x.shape[:2], 8), self.back(self.b(x).view(*x.shape[:2], 16))
        # fmt: on
        return self.head(a * 0.5 + b * (a.shape[-1] ** -0.5) + (a * b) * (b.shape[-1] ** -0.5))


class Scales:
    """Not a module, and asked for a scale by one."""

    def __init__(self, width):
        self.width = width

    def __call__(self, x):
        return x / x.shape[-1] ** 0.5 + x.view(*x.shape[:-1], self.width)


@adversary(series(), series(3, 4))
class AnObjectThatIsNoModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head, self.scales = nn.Linear(3, 8), nn.Linear(8, 2), Scales(8)

    def forward(self, x):
        return self.head(self.scales(self.first(x)))


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.head(x.view(*x.shape[:-1], 8) * x.shape[-1] ** -0.5)


@adversary(series(), series(3, 4), series(2, 1))
class ForwardOfTheBase(Base):
    def forward(self, x):
        if x.shape[1] > 4:
            return super().forward(x) * 2
        return super().forward(x * 0.5)


def _traced(function):
    def wrapped(self, *args, **kwargs):
        return function(self, *args, **kwargs)

    return wrapped


@adversary(series(), series(3, 4))
class DecoratedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    @_traced
    @torch.no_grad()
    def forward(self, x):
        x = self.first(x)
        return self.head(x.view(*x.shape[:-1], 8) * x.shape[-1] ** -0.5)


@adversary(
    lambda: (series(2, 4)(), series(2, 4)()),
    lambda: (series(2, 4)(), None),
    lambda: (None, series(3, 6)()),
)
class OneOfTwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, left, right):
        total = 0
        if left is not None:
            left = self.left(left)
            total = total + left.view(*left.shape[:2], 2, 4).flatten(2)
        if right is not None:
            right = self.right(right)
            total = total + right.view(*right.shape[:2], 4, 2).flatten(2) * 8**-0.5
        return self.head(total)

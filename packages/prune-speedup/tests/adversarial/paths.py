"""Lengths, resolutions and modes that the example does not have, and state that runs leave."""

import torch
import torch.nn.functional as F
from adversaries import adversary, image, series, tokens
from torch import nn


@adversary(series(2, 6), series(3, 4), series(2, 11))
class HalfOfTheSteps(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        half = x.shape[1] // 2
        y = x.narrow(1, 0, half).mean(1, keepdim=True) + self.second(x)[:, half:].sum(1, True)
        return self.head(torch.cat([x, y.view(-1, 1, 8)], 1))


@adversary(image(2, 8), image(2, 12), image(1, 6))
class ChannelsAsManyAsPlaces(nn.Module):
    """As many channels as places in a row, on the example."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        x = x * x.shape[1] ** -0.5 + self.second(x.relu()) / x.shape[-1]
        return self.head(x.flatten(2).mean(2).view(-1, 8))


@adversary(series(2, 8), series(2, 5), series(3, 12))
class AsWideAsLong(nn.Module):
    """The length is the width on the example: which of them a number means is not seen there."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.head(x.view(len(x), x.shape[1], 8) / x.shape[1] + x.mean(1, keepdim=True))


@adversary(tokens(2, 6), tokens(2, 9), tokens(3, 2))
class PlacesOfATable(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(20, 8), nn.Parameter(torch.randn(12, 8))
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, words):
        t = words.shape[1]
        x = self.table(words) + self.places[:t] * (8**-0.5)
        y = self.up(x).view(-1, 16)
        return self.head(x + self.down(y.relu()).view(-1, t, 8))


@adversary(image(2, 8), image(1, 16), image(3, 4))
class FlattenedWhenSmall(nn.Module):
    """Other sizes take another way."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 4, 2)

    def forward(self, x):
        x = self.first(x).relu()
        if x.shape[-1] > 8:
            x = F.adaptive_avg_pool2d(x, 2) * x.shape[1]
        else:
            x = F.adaptive_max_pool2d(x, 2)
        return self.head(x.view(-1, 32))


@adversary(image(2, 8), image(2, 12))
class NormedInTraining(nn.Module):
    """Statistics of the batch, and a step that only training takes."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.norm(self.first(x))
        if self.training:
            x = x + torch.tensor(x.shape[1] ** -0.5).to(x)
        return self.head(x.relu())


@adversary(series(), series(3, 4))
class ScaleInATensorInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        if self.training:
            return self.head(x / torch.tensor(float(x.shape[-1])).sqrt())
        return self.head(x)


@adversary(series(), series(3, 4))
class MeanByHandInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        if self.training:
            return self.head(x) + x.square().mean()
        return self.head(x)


@adversary(series(), series(3, 4), twice=lambda model, x: [model(x), model(x), model(x)])
class EverySecondCall(nn.Module):
    """A counter decides which way is taken."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        self.calls += 1
        if self.calls % 2 == 0:
            x = x * torch.tensor(float(x.shape[-1]))
        return self.head(self.second(x.tanh()).view(*x.shape[:2], 8))


@adversary(series(), twice=lambda model, x: [model(x), model(x * 2), model(x - 1)])
class CacheOfTheLastCall(nn.Module):
    """What one call leaves behind is read by the next, with a size in between."""

    def __init__(self):
        super().__init__()
        self.kept = None
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        if self.kept is not None:
            x = x + self.kept.view(*x.shape[:2], 8) * x.shape[-1] ** -0.5
        self.kept = x.detach()
        return self.head(x.relu())


def _grown(model, x):
    model.past.clear()
    found = [model(x[:, :2]), model(x[:, 2:4]), model(x[:, 4:])]
    model.past.clear()
    return found


@adversary(series(2, 6), series(3, 5), grown=_grown)
class CacheInAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.past = []
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        self.past.append(self.first(x).view(*x.shape[:2], 2, 4))
        seen = torch.cat([step.mean(1, keepdim=True) for step in self.past], 1)
        return self.head(seen.flatten(2))


class Quantiser(nn.Module):
    """A codebook that follows what it is given, in training or always."""

    def __init__(self, width=8, count=6, always=False):
        super().__init__()
        self.always = always
        self.register_buffer("codes", torch.randn(count, width))
        self.register_buffer("hits", torch.ones(count))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        nearest = torch.cdist(rows, self.codes).argmin(-1)
        if self.training or self.always:
            hot = F.one_hot(nearest, len(self.codes)).to(rows)
            self.hits.mul_(0.9).add_(hot.sum(0), alpha=0.1)
            self.codes.data.mul_(0.9).add_(0.1 * (hot.T @ rows) / self.hits[:, None])
        return self.codes[nearest].view(x.shape)


def _followed(model, x):
    found = [model(x), model(x + 1), model(x - 1)]
    return found, model.quantise.hits


@adversary(series(), series(3, 4), followed=_followed)
class CodebookInTraining(nn.Module):
    def __init__(self, always=False):
        super().__init__()
        self.first, self.quantise = nn.Linear(3, 8), Quantiser(always=always)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x).view(*x.shape[:2], 8)
        return self.head(x + self.quantise(x) * x.shape[-1] ** -0.5)


adversary(series(), followed=_followed, name="CodebookAlways", arguments=(True,))(
    CodebookInTraining
)


@adversary(series(), after=lambda model, x: [model(x), model(x), model.total, model.average])
class StatisticsOfItsOwn(nn.Module):
    """A forward whose trace is in its buffers."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("average", torch.zeros(2))

    def forward(self, x):
        x = self.first(x).tanh()
        y = self.head(x.view(-1, 8))
        self.total += x.square().mean()
        self.average.lerp_(y.mean(0), 0.1)
        return y


@adversary(series(), series(3, 4), twice=lambda model, x: [model(x), model(x)])
class TableMadeOnFirstUse(nn.Module):
    """A table that is made by the first call, of the width that is found then."""

    def __init__(self):
        super().__init__()
        self.table = None
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        if self.table is None:
            self.table = 1 / torch.arange(1.0, x.shape[-1] + 1, dtype=x.dtype)
        return self.head(x * self.table.sum())


@adversary(series(), several=lambda model, x: [model(x), model(x), model.state])
class HiddenStateBetweenCalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.first, self.head = nn.GRUCell(8, 8), nn.Linear(3, 8), nn.Linear(8, 2)
        self.state, self._hidden = None, None

    def forward(self, x):
        hidden = x.new_zeros(len(x), 8) if self._hidden is None else self._hidden
        for step in self.first(x).unbind(1):
            hidden = self.cell(step * step.shape[-1] ** -0.5, hidden)
        self._hidden = hidden.detach()
        self.state = hidden.detach().square().mean()
        return self.head(hidden.view(-1, 8))


class Router(nn.Module):
    def __init__(self, width, scaled):
        super().__init__()
        self.layer, self.scaled = nn.Linear(width, width), scaled

    def forward(self, x):
        y = self.layer(x.tanh())
        return y * torch.tensor(y.shape[-1] ** -0.5).to(y) if self.scaled else y


@adversary(lambda: series()() + 3, lambda: series()() - 3, lambda: series(3, 4)() * 3)
class ExpertThatTheExampleMisses(nn.Module):
    """One of two branches, by the numbers; the example takes the plain one."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.experts = nn.ModuleList(Router(8, scaled) for scaled in (False, True))

    def forward(self, x):
        right = x.mean(-1) > 0
        x = self.first(x)
        y = torch.zeros_like(x)
        for chosen, expert in zip((right, ~right), self.experts, strict=True):
            rows = chosen.nonzero(as_tuple=True)
            y[rows] = expert(x[rows])
        return self.head(y)

"""Mistakes that the outputs of the example do not show.

Each model divides by a width that it reads off a tensor, and puts the result into a tensor before
it uses it, so that no operator is told another number than before.
"""

import threading
from collections import namedtuple
from dataclasses import dataclass

import torch
from adversaries import adversary, series
from torch import nn


def scaled(x):
    return x / torch.tensor(float(x.shape[-1])).to(x)


class Wide(nn.Module):
    """Two layers with the scale in between; what comes out is up to the subclass."""

    def __init__(self, out=4):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, out)

    def scores(self, x):
        return self.head(scaled(self.first(x)))


@adversary(series(), series(3, 4))
class HugeConstant(Wide):
    def forward(self, x):
        return self.scores(x) + 1e7


@adversary(series(), series(3, 4))
class OneHugeOutput(Wide):
    def forward(self, x):
        scores = self.scores(x)
        return torch.cat([scores, torch.full_like(scores[..., :1], -1e9)], -1)


@adversary(series(2, 5), series(2, 7))
class MaskedScores(Wide):
    def forward(self, x):
        x = self.scores(x)
        scores = x @ x.transpose(1, 2)
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return scores.masked_fill(ahead, -1e9)


@adversary(lambda: series()() * 1e4, series(3, 4))
class SaturatedSoftmax(Wide):
    def forward(self, x):
        return self.scores(x * 100).softmax(-1)


@adversary(lambda: series()() * 1e3, series(3, 4))
class SaturatedSigmoid(Wide):
    def forward(self, x):
        return (self.scores(x) * 100).sigmoid()


@adversary(series(), series(3, 4))
class Largest(Wide):
    def forward(self, x):
        return (self.scores(x) + 0.7 * self.head.bias).argmax(-1)


@adversary(series(), series(3, 4), lambda: series()() * 9)
class Yes(Wide):
    def forward(self, x):
        return self.scores(x) > 0.1


@adversary(series(), series(3, 4), lambda: series()() * 3)
class Rounded(Wide):
    def forward(self, x):
        return (self.scores(x) * 4).round()


@adversary(lambda: series()().abs() * -5, series(3, 4), lambda: series()().abs() * 9)
class DeadOnTheExample(Wide):
    """The scaled branch is dead for the example."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(4, 4)
        with torch.no_grad():
            self.first.weight.abs_()
            self.first.bias.zero_()
            self.head.weight.abs_()
            self.head.bias.fill_(-0.01)

    def forward(self, x):
        return self.scores(x).relu() + self.second(x.mean(-1, keepdim=True).expand(*x.shape[:2], 4))


@adversary(lambda: series()() * 1e3, series(3, 4))
class AllInfinite(Wide):
    def forward(self, x):
        return (self.scores(x).square() * 1e306).exp()


@adversary(lambda: series()().abs() * 9 + 1, series(3, 4))
class Clamped(Wide):
    def forward(self, x):
        return (self.scores(x).abs() + 5).clamp(max=5.0) - self.scores(x).clamp(1e3)


class Box:
    def __init__(self, scores, name):
        self.scores, self.name = scores, name


@adversary(series(), series(3, 4))
class InAnObject(Wide):
    def forward(self, x):
        return Box(self.scores(x), "found")


class Slotted:
    __slots__ = ("scores",)

    def __init__(self, scores):
        self.scores = scores


@adversary(series(), series(3, 4))
class InSlots(Wide):
    def forward(self, x):
        return {"found": Slotted(self.scores(x)), "count": 3}


@dataclass
class Found:
    scores: torch.Tensor
    more: object = None


@adversary(series(), series(3, 4))
class InADataclass(Wide):
    def forward(self, x):
        return Found(scores=None, more=Box([self.scores(x)], "deep"))


Pair = namedtuple("Pair", "scores name")


@adversary(series(), series(3, 4))
class InANamedTuple(Wide):
    def forward(self, x):
        return Pair(self.scores(x), "found")


@adversary(series(), series(3, 4), kept=lambda model, x: (model(x), model.last)[1])
class InAnAttribute(Wide):
    """Nothing is returned at all."""

    def forward(self, x):
        self.last = self.scores(x)


@adversary(series(), kept=lambda model, x: (model(x), model.found["scores"])[1])
class InADictOfItsOwn(Wide):
    def __init__(self):
        super().__init__()
        self.found = {}

    def forward(self, x):
        self.found["scores"] = self.scores(x)
        return torch.ones(())


@adversary(series(), series(3, 4))
class AsANumber(Wide):
    def forward(self, x):
        return float(self.scores(x).square().mean())


@adversary(series(), series(3, 4))
class AsAnArray(Wide):
    def forward(self, x):
        return {"scores": self.scores(x).detach().numpy()}


@adversary(series(), series(3, 4))
class AsText(Wide):
    def forward(self, x):
        return [f"{score:.3f}" for score in self.scores(x).flatten().tolist()]


@adversary(series(), series(3, 4))
class InAGenerator(Wide):
    def forward(self, x):
        return (step for step in self.scores(x).unbind(1))


@adversary(series(), series(3, 4), lambda: series()() * 2)
class SwallowedByAMaximum(Wide):
    """What is wrong is a channel's, and another is larger by far."""

    def forward(self, x):
        scores = self.scores(x)
        return torch.stack([scores.sum(-1), self.head(self.first(x) * 1e6).sum(-1)], -1)


@adversary(series(), series(3, 4))
class ByNumpy(Wide):
    """A width that numpy reads behind torch's back."""

    def forward(self, x):
        x = self.first(x)
        mean = torch.from_numpy(x.detach().numpy().mean(-1, keepdims=True))
        return self.head(x) + mean


@adversary(series(), series(3, 4))
class ByAnotherThread(Wide):
    def forward(self, x):
        found = []
        x = self.first(x)
        work = threading.Thread(target=lambda: found.append(x.detach().mean(-1, keepdim=True)))
        work.start()
        work.join()
        return self.head(x) + found[0]


@adversary(series(), series(3, 4))
class ByMemory(Wide):
    """The numbers are read from their address."""

    def forward(self, x):
        import ctypes

        x = self.first(x).contiguous()
        numbers = (ctypes.c_double * x.numel()).from_address(x.data_ptr())
        return self.head(x) + sum(numbers) / len(numbers)

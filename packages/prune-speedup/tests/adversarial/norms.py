"""Norms that run over more than the channels that go, or by hand."""

import torch
import torch.nn.functional as F
from adversaries import adversary, image, series
from torch import nn


class Between(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.first, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2, 1)

    def forward(self, x):
        return self.head(self.norm(self.first(x)).relu())


@adversary(image(2, 6), norms=True)
class OverChannelsAndPlaces(Between):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm([8, 6, 6])


@adversary(image(2, 6), image(3, 9), norms=True)
class OverAllThatThereIs(Between):
    def norm(self, x):
        return F.layer_norm(x, x.shape[1:])


@adversary(series(2, 5), series(2, 5), norms=True)
class OverStepsAndChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(3, 8), nn.LayerNorm([5, 8]), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.norm(self.first(x)).relu())


@adversary(image(2, 6), image(3, 5), norms=True)
class OneGroup(Between):
    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(1, 8)


@adversary(series(), series(3, 4), norms=True)
class OverOthersToo(nn.Module):
    """The norm runs over what may go and over the inputs, which stay."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(3, 8), nn.LayerNorm(11), nn.Linear(11, 2)

    def forward(self, x):
        return self.head(self.norm(torch.cat([self.first(x), x], -1)))


@adversary(series(), series(3, 4), norms=True)
class OverTwoWidths(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 8), nn.Linear(3, 4), nn.Linear(12, 2)

    def forward(self, x):
        x = torch.cat([self.a(x), self.b(x)], -1)
        return self.head(F.layer_norm(x, (x.shape[-1],)))


@adversary(series(), series(3, 4), norms=True)
class ByHand(nn.Module):
    """With the variance that statistics takes, over one less."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.head((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5))


@adversary(series(), series(3, 4))
class RootMeanSquareByALiteral(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.head(x / (x.square().sum(-1, keepdim=True) / 8 + 1e-5).sqrt())


@adversary(series(), series(3, 4))
class RootMeanSquareByTheWidth(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.head(x / (x.square().sum(-1, keepdim=True) / x.shape[-1] + 1e-5).sqrt())


@adversary(series(), series(3, 4))
class LengthOne(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(F.normalize(self.first(x), dim=-1) * 8**0.5)


@adversary(series(), series(3, 4), norms=True)
class NormInTrainingOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.head(F.layer_norm(x, (x.shape[-1],)) if self.training else x)


@adversary(series(2, 4), series(2, 7), norms=True)
class NormAtEveryStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)
        self.state = nn.Linear(8, 8)

    def forward(self, x):
        hidden = x.new_zeros(len(x), 8)
        for step in x.unbind(1):
            hidden = self.norm(self.first(step) + self.state(hidden))
        return self.head(hidden)


@adversary(image(2, 6), image(3, 9))
class SoftmaxOverChannels(Between):
    def norm(self, x):
        return x.softmax(1) * x


@adversary(image(2, 6), image(3, 9), norms=True)
class MeanOfEverything(Between):
    def norm(self, x):
        return x / (x.abs().mean() + 1e-5)

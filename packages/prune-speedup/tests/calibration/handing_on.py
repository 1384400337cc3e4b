"""Models that hand things on in all the ways that a walk through them has to understand."""

import torch
from torch import nn

from prune_toolkit.calibration.layers import is_layer


class Layer(nn.Module):
    """A layer of a transformer: what is added to the residual stream is no module."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x, mask, cache=None):
        if cache is not None:
            cache.seen.append(x.detach().clone())
            x = x + 0.1 * sum(each.mean() for each in cache.seen)
        return x + self.down(torch.relu(self.up(self.norm(x)))) * mask


class Cache:
    """An object that layers write into, as a key/value cache."""

    def __init__(self):
        self.seen = []


class Transformer(nn.Module):
    """Embeds, computes a mask, goes through layers, and takes the last token for the head."""

    def __init__(self, cached=False):
        super().__init__()
        self.cached = cached
        self.embed = nn.Embedding(9, 6)
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 4)

    def forward(self, words, attention_mask=None):
        x = self.embed(words)
        mask = torch.ones(*words.shape, 1) if attention_mask is None else attention_mask[..., None]
        for layer in self.layers:
            x = layer(x, mask, cache=Cache() if self.cached else None)
        return self.head(self.norm(x)[:, -1])


class SharedCache(Transformer):
    """All layers write into one object."""

    def forward(self, words):
        cache, x = Cache(), self.embed(words)
        for layer in self.layers:
            x = layer(x, torch.ones(*words.shape, 1), cache)
        return self.head(self.norm(x)[:, -1])


class Skipping(nn.Module):
    """Two branches of which one is needed again much later."""

    def __init__(self):
        super().__init__()
        self.down, self.middle = nn.Linear(4, 6), nn.Linear(6, 6)
        self.join, self.out = Join(), nn.Linear(6, 2)

    def forward(self, x):
        early = self.down(x)
        return self.out(self.join(self.middle(early), early))


class Join(nn.Module):
    def forward(self, a, b):
        return torch.tanh(a) + b


class Twice(nn.Module):
    """Runs the same layer at two places."""

    def __init__(self):
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.shared(self.shared(self.first(x))))


class Sneaky(nn.Module):
    """Hands something on behind everybody's back."""

    def __init__(self):
        super().__init__()
        self.a, self.b = Keeps(), Reads()
        self.b.other = [self.a]

    def forward(self, x):
        return self.b(self.a(x))


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        self.kept = x
        return self.layer(x)


class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x + 10 * self.other[0].kept)


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 3),
    )


def layers_of(model):
    return {
        name: module
        for name, module in model.named_modules()
        if is_layer(module) and not isinstance(module, nn.Embedding)
    }

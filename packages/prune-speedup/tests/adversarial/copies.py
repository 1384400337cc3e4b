"""Modules that say themselves how they are copied, and with it what a copy forgets."""

import copy

from adversaries import adversary, series
from torch import nn


class Rebuilt(nn.Module):
    """What einops does: a copy is built anew from what the constructor was told."""

    def __init__(self, **lengths):
        super().__init__()
        self.lengths = lengths
        self._recipe = tuple(lengths.items())

    def __getstate__(self):
        return {"lengths": self.lengths}

    def __setstate__(self, state):
        self.__init__(**state["lengths"])

    def forward(self, x):
        sizes = dict(self._recipe)
        x = x.view(*x.shape[:-1], sizes["qkv"], sizes["l"], -1)
        q, k, v = x.movedim(-3, 0)
        return q * k.sigmoid() + v


@adversary(series(), series(3, 4))
class RebuiltByItsState(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.part, self.head = nn.Linear(3, 24), Rebuilt(qkv=3, l=4), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.part(self.first(x)).flatten(2))


class LiteralAndState(nn.Module):
    """A literal in the source of a module whose copies keep nothing but what they are told."""

    def __init__(self, turns=1):
        super().__init__()
        self.turns = turns

    def __getstate__(self):
        return {"turns": self.turns}

    def __setstate__(self, state):
        self.__init__(**state)

    def forward(self, x):
        for _ in range(self.turns):
            x = x.view(*x.shape[:-1], 6, 4).softmax(-1).flatten(-2) * x.shape[-1] ** -0.5
        return x


@adversary(series(), series(3, 4))
class LiteralThatAStateForgets(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.part, self.head = nn.Linear(3, 24), LiteralAndState(), nn.Linear(24, 2)

    def forward(self, x):
        return self.head(self.part(self.first(x)))


class Reduced(nn.Module):
    """A copy is made by its constructor, and gets its state nowhere else."""

    def __init__(self, heads=4):
        super().__init__()
        self.heads = heads

    def __reduce__(self):
        return Reduced, (4,)

    def forward(self, x):
        return x.view(*x.shape[:-1], self.heads, -1).softmax(-1).flatten(-2)


@adversary(series(), series(3, 4))
class AttributeThatAReduceForgets(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.part, self.head = nn.Linear(3, 24), Reduced(), nn.Linear(24, 2)

    def forward(self, x):
        return self.head(self.part(self.first(x)))


class ReducedLiteral(nn.Module):
    def __reduce__(self):
        return ReducedLiteral, ()

    def forward(self, x):
        return x.view(*x.shape[:-1], 4, 6).softmax(-1).flatten(-2) * x.shape[-1] ** -0.5


@adversary(series(), series(3, 4))
class LiteralThatAReduceForgets(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.part, self.head = nn.Linear(3, 24), ReducedLiteral(), nn.Linear(24, 2)

    def forward(self, x):
        return self.head(self.part(self.first(x)))


class DeepCopied(nn.Module):
    def __init__(self, heads=4):
        super().__init__()
        self.heads = heads

    def __deepcopy__(self, memo):
        return DeepCopied()

    def forward(self, x):
        return x.view(*x.shape[:-1], self.heads, 6).softmax(-1).flatten(-2)


@adversary(series(), series(3, 4))
class WhatADeepcopyForgets(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.part, self.head = nn.Linear(3, 24), DeepCopied(), nn.Linear(24, 2)

    def forward(self, x):
        return self.head(self.part(self.first(x)))


class Private(nn.Module):
    """State without what begins with an underscore, hooks included."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(24, 24)

    def __getstate__(self):
        kept = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return kept | {"_modules": self._modules, "_parameters": {}, "_buffers": {}}

    def __setstate__(self, state):
        nn.Module.__init__(self)
        vars(self).update(state)

    def forward(self, x):
        return self.layer(x.view(*x.shape[:-1], 4, 6).softmax(-1).flatten(-2))


@adversary(series(), series(3, 4))
class HooksThatAStateForgets(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.part, self.head = nn.Linear(3, 24), Private(), nn.Linear(24, 2)

    def forward(self, x):
        return self.head(self.part(self.first(x)))


@adversary(series(), series(3, 4), again=lambda model, x: copy.copy(model)(x))
class ShallowlyCopied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.head(x.view(*x.shape[:2], 8) * x.shape[-1] ** -0.5)


try:
    from einops import rearrange
    from einops.layers.torch import Rearrange
except ImportError:
    pass
else:

    @adversary(series(), series(3, 4))
    class EinopsLayer(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(3, 24), nn.Linear(8, 2)
            self.part = Rearrange("b h (qkv l d) -> qkv b l h d", qkv=3, l=4)

        def forward(self, x):
            q, k, v = self.part(self.first(x))
            y = (q * k.sigmoid() + v) * q.shape[-1] ** -0.5
            return self.head(y.transpose(1, 2).flatten(2))

    @adversary(series(), series(3, 4))
    class EinopsCall(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = 4
            self.first, self.head = nn.Linear(3, 24), nn.Linear(8, 2)

        def forward(self, x):
            qkv = rearrange(self.first(x), "b n (k h d) -> k b h n d", k=3, h=self.heads)
            q, k, v = qkv
            y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
            return self.head(rearrange(y, "b h n d -> b n (h d)"))

    @adversary(series(), series(3, 4))
    class EinopsLiteral(nn.Module):
        def __init__(self):
            super().__init__()
            self.window = 4
            self.first, self.head = nn.Linear(3, 24), nn.Linear(8, 2)

        def forward(self, x):
            q, k, v = rearrange(self.first(x), "b n (k h d) -> k b h n d", k=3, h=4)
            y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
            y = rearrange(y, "b h n d -> b n (h d)", h=4)
            return self.head(y) * (self.window if self.training else 1)

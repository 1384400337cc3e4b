"""Models put together at random from parts that behave otherwise away from the example.

Each part takes and gives features eight wide, so that the sizes in its source are right, and asks
what is going on: whether the model trains, what it was called with, how often it was called.
"""

import torch
import torch.nn.functional as F
from adversaries import Adversary, series
from hypothesis import strategies as st
from torch import nn

__all__ = ["adversaries_at_random"]

WIDTH = 8


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def forward(self, x, call):
        return x + self.down(self.up(x).tanh())


class Literal(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, 12)
        self.back = nn.Linear(12, WIDTH)

    def forward(self, x, call):
        y = self.layer(x)
        return self.back(y.view(*y.shape[:-1], 3, 4).softmax(-1).flatten(-2))


class Heads(nn.Module):
    """Heads, and other numbers that are equal to theirs."""

    def __init__(self):
        super().__init__()
        self.heads = self.window = self.every = 4
        self.layer, self.back = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)

    def forward(self, x, call):
        y = self.layer(x).view(*x.shape[:-1], self.heads, -1).softmax(-1).flatten(-2)
        if call.sharp:
            y = y * self.window
        if x.shape[1] > 2 * self.window:
            y = y.roll(self.window, 1)
        if self.training:
            y = y + self.every
        return self.back(y)


class HeadsForMore(nn.Module):
    """Heads that are also a factor, in training or when that is asked for."""

    def __init__(self):
        super().__init__()
        self.sizes = (4, 4)
        self.layer, self.back = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)

    def forward(self, x, call):
        y = self.layer(x).view(*x.shape[:-1], *self.sizes).softmax(-1).flatten(-2)
        if call.sharp or self.training:
            y = y * self.sizes[0]
        return self.back(y)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.back = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def forward(self, x, call):
        y = self.layer(x)
        if call.mask is not None:
            y = y * call.mask
        if self.training:
            y = y * 1.25
        return self.back(y * y.shape[-1] ** -0.5 + y.mean(1, keepdim=True) / x.shape[1])


class HiddenScale(nn.Module):
    """A width in a tensor, where no operator is told it."""

    def __init__(self, when="always"):
        super().__init__()
        self.when = when
        self.layer, self.back = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def forward(self, x, call):
        y = self.layer(x)
        asked = {"always": True, "training": self.training, "sharp": call.sharp}
        if asked.get(self.when, x.shape[1] > 7):
            y = y / torch.tensor(float(y.shape[-1])).to(y)
        return self.back(y)


class Steps(nn.Module):
    """A recurrence with a size and a scale in its loop."""

    def __init__(self):
        super().__init__()
        self.inside, self.state, self.back = (
            nn.Linear(WIDTH, 6),
            nn.Linear(6, 6),
            nn.Linear(6, WIDTH),
        )

    def forward(self, x, call):
        hidden, found = torch.zeros(len(x), 6, dtype=x.dtype), []
        for step in x.unbind(1):
            hidden = (self.inside(step) + self.state(hidden) * hidden.shape[-1] ** -0.5).tanh()
            found.append(hidden.view(-1, 1, 6))
        return self.back(torch.cat(found, 1))


class Counter(nn.Module):
    """Every other call does something else."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.layer, self.back = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def forward(self, x, call):
        self.calls += 1
        y = self.layer(x)
        if self.calls % 2 == 0:
            y = y.view(*y.shape[:-1], 12) * y.shape[-1] ** -0.5
        return self.back(y.relu())


class Kept(nn.Module):
    """What one call leaves is added by the next."""

    def __init__(self):
        super().__init__()
        self.last = None
        self.register_buffer("average", torch.zeros(()))
        self.layer, self.back = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def forward(self, x, call):
        y = self.layer(x).tanh()
        if self.last is not None:
            y = y + self.last.mean((0, 1)).view(12) * 0.5
        self.last = y.detach()
        self.average.lerp_(y.sum(), 0.1)
        return self.back(y)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(WIDTH, 12, 3, padding=1), nn.BatchNorm1d(12)
        self.back = nn.Conv1d(12, WIDTH, 1)

    def forward(self, x, call):
        y = self.norm(self.conv(x.transpose(1, 2)))
        if self.training:
            y = F.avg_pool1d(y, 3, 1, 1)
        return x + self.back(y.relu()).transpose(1, 2)


PARTS = {
    "layer": Layer,
    "literal": Literal,
    "heads": Heads,
    "heads for more": HeadsForMore,
    "scale": Scale,
    "steps": Steps,
    "counter": Counter,
    "kept": Kept,
    "convolution": Convolution,
    "hidden scale": HiddenScale,
    "hidden scale in training": lambda: HiddenScale("training"),
    "hidden scale when asked": lambda: HiddenScale("sharp"),
    "hidden scale when long": lambda: HiddenScale("long"),
}


class Box:
    def __init__(self, content):
        self.content = content


OUTPUTS = {
    "plain": lambda x: x,
    "huge": lambda x: x + 1e8,
    "largest": lambda x: x.argmax(-1),
    "saturated": lambda x: (x * 1e4).softmax(-1),
    "dead": lambda x: (x - 50).relu(),
    "masked": lambda x: torch.cat([x, torch.full_like(x[..., :1], -1e9)], -1),
    "in an object": Box,
    "a number": lambda x: float(x.square().mean()),
    "yes or no": lambda x: x > 0,
}


class Call:
    """What a model was called with."""

    def __init__(self, mask, sharp):
        self.mask, self.sharp = mask, sharp


class Composed(nn.Module):
    def __init__(self, parts, output):
        super().__init__()
        self.first, self.head = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 4)
        self.parts, self.output = nn.ModuleList(PARTS[part]() for part in parts), output

    def forward(self, x, mask=None, sharp=False):
        call = Call(mask, sharp)
        x = self.first(x)
        for part in self.parts:
            x = part(x, call)
        return OUTPUTS[self.output](self.head(x))


def _others():
    return (
        series(3, 2),
        series(2, 9),
        lambda: {"x": series()(), "sharp": True},
        lambda: {"x": series()(), "mask": torch.rand(2, 5, 1, dtype=torch.float64)},
    )


@st.composite
def adversaries_at_random(draw):
    """A few parts one behind the other, and something done to what comes out."""
    parts = draw(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=3))
    output = draw(st.sampled_from(sorted(OUTPUTS)))
    return Adversary(
        f"{parts}, {output}",
        lambda: Composed(parts, output),
        series(),
        _others(),
        {"three times": lambda model, x: [model(x), model(x + 1), model(x * 2)]},
    )

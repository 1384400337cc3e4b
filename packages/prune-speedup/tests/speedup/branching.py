"""A small model that does more than its example shows, and ways to prune it."""

import torch
from torch import nn

from prune_core import units

__all__ = ["Branching", "half", "snapshot", "unchanged"]


class Branching(nn.Module):
    """A layer that only some inputs reach: a recording of others does not know it."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(3, 8), nn.LayerNorm(8)
        self.usual, self.rare = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.norm(self.first(x))
        return self.usual(hidden) if x.mean() > 0 else self.rare(hidden)


def half(model, x):
    found = units(model, x)
    return [found.unit(label) for group in found.groups for label in group.labels[::2]]


def unchanged(model, before):
    return all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}

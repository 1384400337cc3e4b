"""Two layers with something between them, of which the output shows nothing."""

import pytest
import torch
from torch import nn

from prune_core import SpeedupError, shrink


class Between(nn.Module):
    """Two layers, something between them, and an output that shows nothing of it."""

    def __init__(self, between):
        super().__init__()
        self.first, self.between, self.head = nn.Linear(3, 8), between, nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.between(self.first(x))).round(decimals=-3)


def halved(between, *, faint=False):
    torch.manual_seed(0)
    model = Between(between).eval()
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter[:4] = 0
        if faint:  # beside the bias nothing is seen of what the last layer is given
            model.head.weight.mul_(1e-9)
    return model


class Sized(nn.Module):
    """Does one thing after a layer of eight numbers, and another after any other."""

    def __init__(self, before, after):
        super().__init__()
        self.before, self.after = before, after

    def forward(self, y):
        return (self.before if self.layer[0].out_features == 8 else self.after)(y)


def refused(model, x):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    says = "Inside, the small model .* on the example|does not follow smaller tensors"
    with pytest.raises(SpeedupError, match=says):
        shrink(model, x)
    return all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

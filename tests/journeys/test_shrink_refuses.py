"""What the README says of `shrink`: a model that would compute something else stays as it was."""

import copy

import pytest
import torch
from torch import nn

from prune_core import SpeedupError, shrink, unwrap
from prune_filter import L1NormPruner


class Moody(nn.Module):
    """Does something else when it has another number of features."""

    def __init__(self):
        super().__init__()
        self.widen = nn.Linear(4, 8)
        self.narrow = nn.Linear(8, 2)

    def forward(self, x):
        y = self.narrow(self.widen(x).relu())
        return y.sin() if len(self.widen.weight) == 8 else y.cos()


def test_it_raises_and_leaves_the_model_alone():
    model = Moody()
    config_list = [{"op_names": ["widen"], "sparsity": 0.5}]
    _, masks = L1NormPruner(model, config_list).compress()
    unwrap(model)
    before, inputs = copy.deepcopy(model), torch.rand(3, 4)
    with pytest.raises(SpeedupError):
        shrink(model, inputs, masks)
    assert model.widen.out_features == 8
    assert torch.equal(model(inputs), before(inputs))

"""What the README says of `shrink`: a model that would compute something else stays as it was."""

import copy

import pytest
import torch
from torch import nn

from prune_core import SpeedupError, shrink, unwrap
from prune_filter import L1NormPruner


class Mean(nn.Module):
    """Divides by the number of features that it was built with: half of them is another model."""

    def __init__(self):
        super().__init__()
        self.widen = nn.Linear(4, 8)
        self.narrow = nn.Linear(8, 2)

    def forward(self, x):
        return self.narrow(self.widen(x).relu()) / self.widen.out_features


def test_it_raises_and_leaves_the_model_alone():
    model = Mean()
    config_list = [{"op_names": ["widen"], "sparsity": 0.5}]
    _, masks = L1NormPruner(model, config_list).compress()
    unwrap(model)
    before, inputs = copy.deepcopy(model), torch.rand(3, 4)
    with pytest.raises(SpeedupError):
        shrink(model, inputs, masks)
    assert model.widen.out_features == 8
    assert torch.equal(model(inputs), before(inputs))

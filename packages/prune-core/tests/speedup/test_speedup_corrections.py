"""A model whose calls are corrected is still an ordinary model."""

import copy
import pickle

import pytest
import torch
from torch import nn

from prune_core.errors import SpeedupError
from prune_core.graph import units
from prune_core.speedup import shrink
from prune_core.speedup.corrections import corrections_of


class Literal(nn.Module):
    """A forward with a size written into the source."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.second(self.first(x).view(-1, 8))


def corrected():
    torch.manual_seed(0)
    model = Literal()
    found = units(model, torch.ones(2, 3))
    shrink(
        model, torch.ones(2, 3), units=[found.unit(label) for label in found.groups[0].labels[:5]]
    )
    return model


def test_it_follows_any_batch_and_trains():
    model = corrected()
    assert corrections_of(model).sizes == {("view", 0): {1: 3}}
    model(torch.rand(7, 3)).sum().backward()
    assert model.first.weight.grad.shape == (3, 3)


def test_it_can_be_copied_and_pickled():
    model = corrected()
    inputs = torch.rand(4, 3)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(inputs), model(inputs))
        assert corrections_of(other) is not corrections_of(model)


def test_a_forward_that_fails_leaves_no_correction_running():
    model = corrected()
    with pytest.raises(RuntimeError):
        model(torch.rand(4, 5))
    assert torch.ones(16).view(-1, 8).shape == (2, 8)
    assert model(torch.rand(4, 3)).shape == (4, 2)


def test_it_can_be_shrunk_again():
    model = corrected()
    found = units(model, torch.ones(2, 3))
    assert len(found) == 3
    shrink(model, torch.ones(2, 3), units=[next(iter(found))])
    assert model.second.in_features == 2
    assert model(torch.rand(5, 3)).shape == (5, 2)


def test_a_second_shrink_that_fails_leaves_the_first():
    model = corrected()
    inputs = torch.rand(5, 3)
    before, found = model(inputs), units(model, torch.ones(2, 3))
    with pytest.raises(SpeedupError):
        shrink(model, torch.ones(2, 3), units=[next(iter(found))], tolerance=-1.0)
    assert torch.equal(model(inputs), before)

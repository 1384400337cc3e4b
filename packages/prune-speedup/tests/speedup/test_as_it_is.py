"""A small model that follows as it is runs once; any other is looked at more closely."""

from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from exactness import check, image
from torch import nn

from prune_core import shrink
from prune_core.errors import SpeedupError
from prune_speedup.torch.model_config.search import Search
from prune_speedup.torch.resize import search


@pytest.fixture
def looks(monkeypatch):
    """The closer looks that are taken."""
    taken, attempt = [], search.attempt

    def counted(*args):
        taken.append(attempt(*args))
        return taken[-1]

    monkeypatch.setattr(search, "attempt", counted)
    return taken


class Ends(nn.Module):
    """A layer, something that is done to its features, and another layer."""

    def __init__(self, between, width=16):
        super().__init__()
        self.first, self.between, self.head = nn.Linear(3, width), between, nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.between(self.first(x).relu()))


def features():
    return torch.rand(4, 3, dtype=torch.float64)


def test_layers_of_torch_follow_as_they_are(looks):
    convolutions = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1), nn.Hardtanh()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)),
    )
    check(convolutions, image())
    assert not looks


def test_what_no_shape_tells_is_looked_at_closely(looks):
    check(Ends(lambda x: x.roll(5, 1)), features())
    assert looks
    looks.clear()
    check(Ends(lambda x: F.group_norm(x, 4), width=32), features())
    assert looks


def test_sizes_that_are_written_down_are_looked_at_closely(looks):
    check(Ends(lambda x: x.view(len(x), 4, 4).transpose(1, 2).reshape(len(x), 16)), features())
    assert looks
    assert looks[0].needs


class Checks(nn.Module):
    """Takes as many features as it was made for."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        if x.shape[1] != self.width:
            raise ValueError(f"{self.width} features, please")
        return x


def test_the_proof_alone_runs_what_tells_no_size(looks, monkeypatch):
    runs, follows = [], search.follows_as_it_is
    monkeypatch.setattr(search, "follows_as_it_is", lambda *args: runs.append(1) or follows(*args))
    check(Ends(torch.tanh), features())
    assert not runs
    check(Ends(lambda x: x.view(len(x), 16)), features())
    assert runs


def test_what_the_proof_fails_of_is_repaired(looks):
    model = Ends(Checks(16))
    check(model, features())
    assert model.between.width < 16
    assert looks


class ChecksInTraining(nn.Module):
    """Has a second head in training, and there takes what its example is as wide as it was."""

    def __init__(self):
        super().__init__()
        self.first, self.head, self.second = nn.Linear(3, 16), nn.Linear(16, 2), nn.Linear(16, 2)
        self.width = 16

    def forward(self, x):
        y = self.first(x).relu()
        if not self.training:
            return self.head(y)
        if len(x) == 4 and y.shape[1] != self.width:
            raise ValueError(f"{self.width} features, please")
        return self.head(y), self.second(y)


def test_what_is_recorded_in_training_is_tried_in_training():
    model = ChecksInTraining()
    check(model, features())
    assert model.width == model.first.out_features < 16
    model.train()(features())


def test_a_forward_that_turns_elsewhere_is_not_followed(looks):
    turning = Ends(lambda x: x.tanh() if x.shape[1] == 16 else x.sigmoid())
    with pytest.raises(SpeedupError, match="does not follow smaller tensors"):
        check(turning, features())
    assert looks[0].mismatch is not None


def test_a_size_that_only_breaks_something_is_tried_once():
    def shapes(values):
        width, steps = values.get(("width",), 8), values.get(("steps",), 4)
        return {"layer.weight": (width, width), "positions": (steps, 4)}

    tried = []

    def make(values):
        tried.append(dict(values))
        return shapes(values)

    old = {("width",): 8, ("steps",): 4, ("rest",): 2}
    after = {"layer.weight": (4, 4), "positions": (4, 4)}
    found = Search(old, make, shapes({}), after, base={}, builds=50)
    assert {("width",): 4} in list(found.fitting())
    assert [values for values in tried if ("steps",) in values] == [{("steps",): 2}]


@lru_cache
def factors(width):
    """A table that outlives the forward that asked for it, and is another for each width."""
    return (torch.ones(1, 4) @ torch.ones(4, 1)) * torch.ones(1, width)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("closely", [False, True])
def test_what_a_trial_leaves_in_a_cache_has_its_numbers(monkeypatch, verify, closely):
    if closely:
        monkeypatch.setattr(search, "follows_as_it_is", lambda *_: False)
    factors.cache_clear()
    model = Ends(lambda x: x * factors(x.shape[1]).to(x)).eval()
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter[::2] = 0
    x = torch.rand(4, 3)
    expected = model(x)
    factors.cache_clear()
    shrink(model, x, verify=verify)
    assert model.first.out_features == 8
    assert (factors(8) == 4).all()
    torch.testing.assert_close(model(x), expected)

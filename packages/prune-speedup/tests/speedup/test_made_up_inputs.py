"""Inputs that are made of the example: each is looked at where it is asked for by its name."""

import copy
import functools

import pytest
import torch
from torch import nn

from prune_core import ConfigError, PruneWarning, shrink
from prune_speedup.torch.proof.cases import other_batch
from prune_speedup.torch.proof.made_up import made_up


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, tokens, scale):
        return self.down(torch.relu(self.up(self.words(tokens))) * scale)


def masks():
    mask = {"weight": torch.ones(8, 6), "bias": torch.ones(8)}
    mask["weight"][2], mask["bias"][2] = 0, 0
    return {"up": mask}


def inputs():
    return torch.tensor([[1, 2, 3, 4]]), torch.rand(1, 4, 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("random", "random numbers of the example's shape and range"),
        ("permuted", "the example's tokens in another order"),
        ("length", "2 along axis 1 where the example has 4"),
        ("training", "the example in training"),
    ],
)
def test_each_is_looked_at_where_it_is_asked_for(name, said):
    torch.manual_seed(0)
    assert said not in shrink(Tokens(), inputs(), masks()).verified
    assert said in shrink(Tokens(), inputs(), masks(), verify_inputs=[name]).verified


def test_a_name_that_is_none():
    with pytest.raises(ConfigError, match=r"'rnadom'.*'random'"):
        shrink(Tokens(), inputs(), masks(), verify_inputs=["rnadom"])


def test_random_numbers_are_of_the_example_s_range():
    x = torch.randn(3, 4)
    before = torch.get_rng_state()
    _, other = made_up("random", {"x": x, "tokens": torch.arange(6).view(2, 3)})
    assert torch.equal(before, torch.get_rng_state())
    assert x.min() <= other["x"].min() < other["x"].max() <= x.max()
    assert not torch.equal(other["x"], x)
    assert sorted(other["tokens"].flatten().tolist()) == [*range(6)]


class TwoPaths(nn.Module):
    """Where numbers fall, a masked channel is not zero when it is read."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        y = self.up(x)
        in_steps = bool((x.diff().abs() == 1).all())
        return self.down(torch.relu(y) if in_steps else torch.cos(y))


def test_random_numbers_take_a_path_that_the_example_does_not():
    mask = {"weight": torch.ones(6, 4), "bias": torch.ones(6)}
    mask["weight"][2], mask["bias"][2] = 0, 0
    x = torch.arange(4.0)[None]
    torch.manual_seed(0)
    model = TwoPaths()
    assert shrink(copy.deepcopy(model), x, {"up": mask}).removed == 1
    with pytest.warns(PruneWarning, match="stay"):
        assert shrink(model, x, {"up": mask}, verify_inputs=["random"]).removed == 0


def test_rows_that_a_batch_has_not_are_mirrored():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    name, rows = other_batch(image)
    assert name == "a batch of 2 where the example has 1"
    assert torch.equal(rows[0], image[0])
    assert rows[1].tolist() == [[[2, 1, 0], [5, 4, 3]]]
    _, rows = other_batch(torch.arange(6.0).view(1, 3, 2))
    assert rows[1].tolist() == [[4, 5], [2, 3], [0, 1]]


@pytest.mark.parametrize("table", [torch.arange(6.0).view(2, 3), torch.arange(6).view(2, 3, 1)])
def test_columns_of_a_table_and_tokens_stay_where_they_are(table):
    _, found = other_batch({"table": table, "mask": torch.ones(2)})
    assert torch.equal(found["table"], table[[0, 1, 0]])
    assert found["mask"].shape == (3,)


@pytest.mark.parametrize(("size", "other"), [(1, 2), (2, 3), (3, 4), (4, 3), (9, 3)])
def test_of_several_rows_never_two_are_left(size, other):
    assert len(other_batch(torch.rand(size, 2))[1]) == other


class Drops(nn.Module):
    """Leaves out rows in training."""

    def forward(self, x):
        return x * torch.rand(len(x), 1).round() if self.training else x


def in_training(module):
    return module.training


def decorated(forward):
    @functools.wraps(forward)
    def same(*args):
        return forward(*args)

    return same


class Plain(nn.Module):
    """Does in training what a small model cannot."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        y = self.up(x).relu()
        return self.down(y + 1 if self.trains() else y)


class ByFunction(Plain):
    def trains(self):
        return in_training(self)


class ByProperty(Plain):
    is_training = property(in_training)

    def trains(self):
        return self.is_training


class ByStatic(Plain):
    trains_too = staticmethod(in_training)

    def trains(self):
        return self.trains_too(self)


class ByText(Plain):
    def trains(self):
        return vars(self)["training"]


class ByWrapper(Plain):
    @decorated
    def trains(self):
        return self.training


class ByTrain(Plain):
    mode = True

    def train(self, mode=True):
        self.mode = mode
        return super().train(mode)

    def trains(self):
        return self.mode


@pytest.mark.parametrize("kind", [ByFunction, ByProperty, ByStatic, ByText, ByWrapper, ByTrain])
def test_a_forward_asks_for_its_mode_in_many_ways(kind):
    torch.manual_seed(0)
    model = kind().eval()
    mask = {"up": {"weight": torch.ones(8, 6), "bias": torch.ones(8)}}
    mask["up"]["weight"][2], mask["up"]["bias"][2] = 0, 0
    with pytest.warns(PruneWarning, match="stay"):
        report = shrink(model, torch.rand(3, 6), mask)
    assert any("in training" in name for name in report.verified)
    assert model.up.out_features == 8


@pytest.mark.parametrize("known", [False, True])
def test_layers_of_packages_that_drop_rows_do_so_at_any_width(monkeypatch, known):
    if known:
        monkeypatch.setattr(Drops, "__module__", "torchvision.ops.stochastic_depth")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Drops(), nn.Linear(8, 2)).eval()
    mask = {"0": {"weight": torch.ones(8, 6), "bias": torch.ones(8)}}
    mask["0"]["weight"][2], mask["0"]["bias"][2] = 0, 0
    x = torch.rand(3, 6)
    verified = shrink(copy.deepcopy(model), x, mask).verified
    assert any("in training" in name for name in verified) != known
    asked = shrink(model, x, mask, verify_inputs=["training"]).verified
    assert "the example in training" in asked


class Heads(nn.Module):
    """Has a number of heads, which becomes another one."""

    def __init__(self):
        super().__init__()
        self.heads, self.layer, self.last = 2, nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        y = self.layer(x).view(*x.shape[:-1], self.heads, 4)
        return self.last((y * y.softmax(-1)).flatten(-2))


def test_what_is_looked_at_anyway_is_not_looked_at_twice():
    model, x = Heads(), torch.rand(2, 3, 8)
    mask = {"layer": {"weight": torch.ones(8, 8), "bias": torch.ones(8)}}
    mask["layer"]["weight"][:4], mask["layer"]["bias"][:4] = 0, 0
    verified = shrink(model, x, mask, verify_inputs=["training", "length"]).verified
    assert model.layer.out_features == 4
    assert "the example in training" in verified
    assert len(verified) == len({*verified})


@pytest.mark.parametrize("inputs", ["training", {"x": 1}, 3, torch.ones(2, 6)])
def test_more_inputs_are_a_list(inputs):
    with pytest.raises(ConfigError, match=r"verify_inputs is .*; it must be a list of inputs"):
        shrink(nn.Linear(6, 2), torch.ones(2, 6), verify_inputs=inputs)


def test_more_inputs_may_come_one_by_one():
    model, x = Heads().eval(), torch.rand(2, 3, 8)
    mask = {"layer": {"weight": torch.ones(8, 8), "bias": torch.ones(8)}}
    mask["layer"]["weight"][:4], mask["layer"]["bias"][:4] = 0, 0
    verified = shrink(model, x, mask, verify_inputs=(each for each in [x[:1], "random"])).verified
    assert "verify_inputs[0]" in verified
    assert "random numbers of the example's shape and range" in verified


def test_a_row_has_no_length_to_be_changed():
    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), torch.rand(6)
    mask = {"0": {"weight": torch.ones(8, 6), "bias": torch.ones(8)}}
    mask["0"]["weight"][2], mask["0"]["bias"][2] = 0, 0
    assert shrink(model, x, mask, verify_inputs=["length"]).verified[0] == "the example"
    assert model[0].out_features == 7

"""Small graphs whose units a person can find by looking."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prune_speedup.torch import units


def cut(found):
    """Every unit as {tensor: {axis: indices}}, in order."""
    return [dict(unit.slices) for unit in found]


class Net(nn.Module):
    """Modules by name and a forward given as a function of them."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self._run = forward

    def forward(self, *inputs):
        return self._run(self, *inputs)


def test_the_hidden_features_between_two_linear_layers():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 4))
    assert cut(units(model, torch.ones(5, 3))) == [
        {"0.weight": {0: (0,)}, "0.bias": {0: (0,)}, "2.weight": {1: (0,)}},
        {"0.weight": {0: (1,)}, "0.bias": {0: (1,)}, "2.weight": {1: (1,)}},
    ]


def test_inputs_and_outputs_stay():
    assert len(units(nn.Linear(3, 2), torch.ones(5, 3))) == 0
    found = units(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4)), torch.ones(1, 3))
    assert "returns" in found.why_fixed("1.weight", 0)
    assert "stays" in found.why_fixed("0.weight", 1)
    assert found.why_fixed("1.weight", 1) == ""


def test_a_channel_takes_its_norm_and_its_block_of_the_flattened_features():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 1)
    )
    second = cut(units(model, torch.ones(1, 1, 4, 4)))[1]
    assert second == {
        "0.weight": {0: (1,)},
        "1.weight": {0: (1,)},
        "1.bias": {0: (1,)},
        "1.running_mean": {0: (1,)},
        "1.running_var": {0: (1,)},
        "3.weight": {1: (4, 5, 6, 7)},
    }


def test_a_residual_connection_ties_what_it_adds():
    model = Net(
        lambda m, x: m.head(m.stem(x) + m.body(F.relu(m.stem(x)))),
        stem=nn.Linear(3, 4),
        body=nn.Linear(4, 4),
        head=nn.Linear(4, 1),
    )
    first = cut(units(model, torch.ones(2, 3)))[0]
    assert first == {
        "stem.weight": {0: (0,)},
        "stem.bias": {0: (0,)},
        "body.weight": {0: (0,), 1: (0,)},
        "body.bias": {0: (0,)},
        "head.weight": {1: (0,)},
    }


def test_concatenated_features_keep_their_places():
    model = Net(
        lambda m, x: m.head(torch.cat([m.left(x), x, m.right(x)], 1)),
        left=nn.Linear(3, 2),
        right=nn.Linear(3, 2),
        head=nn.Linear(7, 1),
    )
    heads = [unit["head.weight"] for unit in cut(units(model, torch.ones(2, 3)))]
    assert heads == [{1: (0,)}, {1: (1,)}, {1: (5,)}, {1: (6,)}]


def test_a_depthwise_convolution_ties_its_input_to_its_output():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(4, 1, 1))
    first = cut(units(model, torch.ones(1, 1, 5, 5)))[0]
    assert first == {
        "0.weight": {0: (0,)},
        "0.bias": {0: (0,)},
        "1.weight": {0: (0, 1)},
        "1.bias": {0: (0, 1)},
        "2.weight": {1: (0, 1)},
    }


def test_a_convolution_with_two_wide_groups_loses_the_same_index_in_each():
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 6, 1, groups=2), nn.Conv2d(6, 1, 1))
    found = units(model, torch.ones(1, 1, 5, 5))
    assert [len(group) for group in found.groups] == [3, 3]
    assert cut(found)[0] == {
        "0.weight": {0: (0, 3)},
        "0.bias": {0: (0, 3)},
        "1.weight": {1: (0,)},
    }


def test_group_norm_loses_whole_groups():
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.GroupNorm(3, 6), nn.Conv2d(6, 1, 1))
    assert [unit["1.weight"] for unit in cut(units(model, torch.ones(1, 1, 5, 5)))] == [
        {0: (0, 1)},
        {0: (2, 3)},
        {0: (4, 5)},
    ]


def test_a_softmax_keeps_what_it_runs_over():
    model = nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1), nn.Linear(4, 2))
    found = units(model, torch.ones(2, 3))
    assert len(found) == 0
    assert "softmax" in found.why_fixed("0.weight", 0)


def test_what_the_example_does_not_run_says_so():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x):
            return self.used(x)

    assert "does not use" in units(Partly(), torch.ones(2, 3)).why_fixed("unused.weight", 0)


def test_features_that_are_not_zero_when_masked_are_not_multiplied_away():
    """A product of two sigmoids adds a quarter per masked feature: nothing can go."""

    def forward(m, x):
        left, right = torch.sigmoid(m.left(x)), torch.sigmoid(m.right(x))
        return m.head(left @ right.transpose(1, 2))

    model = Net(forward, left=nn.Linear(3, 4), right=nn.Linear(3, 4), head=nn.Linear(2, 2))
    assert len(units(model, torch.ones(1, 2, 3))) == 0

    def plain(m, x):
        return m.head(m.left(x) @ m.right(x).transpose(1, 2))

    model._run = plain
    assert len(units(model, torch.ones(1, 2, 3))) == 4


def test_a_mean_over_channels_may_only_normalise():
    def normalised(m, x):
        y = m.stem(x)
        return m.head(y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6))

    model = Net(normalised, stem=nn.Linear(3, 4), head=nn.Linear(4, 2))
    assert len(units(model, torch.ones(2, 3))) == 4

    def gated(m, x):
        y = m.stem(x)
        return m.head(y * torch.sigmoid(m.gate(y.mean(-1, keepdim=True))))

    model = Net(gated, stem=nn.Linear(3, 4), gate=nn.Linear(1, 4), head=nn.Linear(4, 2))
    found = units(model, torch.ones(2, 3))
    assert len(found) == 0
    assert "mean" in found.why_fixed("stem.weight", 0)


@pytest.mark.parametrize(
    ("forward", "count"),
    [
        (lambda y, mean: y - mean, 4),
        (lambda y, mean: y / (mean + 1), 4),
        (lambda y, mean: y * (mean + 1).rsqrt(), 4),
        (lambda y, mean: y * (mean + 1) ** -0.5, 4),
        (lambda y, mean: y + mean, 0),
        (lambda y, mean: y * mean, 0),
        (lambda y, mean: y * torch.sigmoid(mean), 0),
        (lambda y, mean: torch.cat([y, mean], 1), 0),
    ],
)
def test_what_a_mean_is_used_for_decides(forward, count):
    model = Net(
        lambda m, x: m.head(forward(m.stem(x), m.stem(x).square().mean(-1, True))[:, :4]),
        stem=nn.Linear(3, 4),
        head=nn.Linear(4, 2),
    )
    assert len(units(model, torch.ones(2, 3))) == count


def test_a_tied_embedding_goes_as_one():
    model = Net(
        lambda m, x: F.linear(m.body(m.table(x)), m.table.weight),
        table=nn.Embedding(7, 3),
        body=nn.Linear(3, 3),
    )
    found = units(model, torch.arange(4))
    # The table's columns go in as input of the body and meet its output at the end.
    assert cut(found)[0] == {
        "table.weight": {1: (0,)},
        "body.weight": {0: (0,), 1: (0,)},
        "body.bias": {0: (0,)},
    }
    assert "row" in found.why_fixed("table.weight", 0)


def test_an_unknown_operator_keeps_what_goes_into_it_and_is_named():
    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.nanmedian(x, 0, keepdim=True).values

    model = Net(lambda m, x: m.b(Odd.apply(m.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    found = units(model, torch.ones(2, 3))
    assert len(found) == 0
    assert any("nanmedian" in name for name in found.unknown)
    assert "no rule" in found.why_fixed("a.weight", 0)


def test_the_tree_names_groups_and_what_they_cut():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 4))
    assert units(model, torch.ones(5, 3)).tree().splitlines() == [
        "0.weight[0]: 2 units",
        "├── 0.weight axis 0 of 2, 1 index each",
        "├── 0.bias axis 0 of 2, 1 index each",
        "└── 2.weight axis 1 of 2, 1 index each",
    ]


def test_a_single_feature_beside_others_is_no_unit():
    model = Net(
        lambda m, x: torch.cat([m.c(h := m.a(x)), m.b(h)], 1),
        a=nn.Linear(3, 4),
        b=nn.Linear(4, 1),
        c=nn.Linear(4, 2),
    )
    found = units(model, torch.ones(2, 3))
    assert len(found) == 4
    assert not found.unknown

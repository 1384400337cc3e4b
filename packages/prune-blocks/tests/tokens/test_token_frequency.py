"""The tokens that occur least in data go, and those that have to stay do."""

import pytest
import torch
from torch import nn

import prune_core
from prune_core import ConfigError

BATCHES = [torch.tensor([[1, 1, 1, 2]]), torch.tensor([[2, 3, 3, 9]])]


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 4, padding_idx=8), nn.Linear(4, 10))


def test_the_rarest_go():
    small, report = prune_core.prune(model(), "token_frequency", sparsity=0.5, data=BATCHES)
    # 1, 2, 3 and 9 occur, and 8 is the padding.
    assert report.tokens.old_ids == [1, 2, 3, 8, 9]
    assert (small[0].num_embeddings, small[1].out_features) == (5, 5)


def test_among_those_that_never_occur_the_highest_go():
    _, report = prune_core.prune(model(), "token_frequency", count=2, data=BATCHES)
    assert report.tokens.old_ids == [0, 1, 2, 3, 4, 5, 8, 9]


def test_keep_and_round_to():
    _, report = prune_core.prune(
        model(), "token_frequency", count=4, data=BATCHES, keep=[7], round_to=4
    )
    assert report.tokens.old_ids == [0, 1, 2, 3, 4, 7, 8, 9]


def test_a_target_is_met():
    small, _ = prune_core.prune(
        model(), "token_frequency", target={"parameters": 0.6}, data=BATCHES
    )
    whole = 10 * 4 + 4 * 10 + 10
    left = sum(each.numel() for each in small.parameters())
    assert left <= 0.6 * whole < left + 9, "one token more would be too many"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sparsity": 0.9}, "1 of the 10 tokens .* would stay, .* name 3"),
        ({"sparsity": 0.01}, "all 10 tokens of '0' stay"),
        ({"count": 0}, "count is 0"),
        ({"sparsity": 0.5, "exclude": "1"}, "one vocabulary is pruned at a time"),
        ({"sparsity": 0.5, "targets": "2"}, "no vocabulary '2'"),
        ({"target": {"flops": 0.5}}, "share of the parameters"),
        ({"sparsity": 0.5, "keep": [10]}, "keep has 10"),
    ],
)
def test_bad_input(options, match):
    with pytest.raises(ConfigError, match=match):
        prune_core.prune(model(), "token_frequency", data=BATCHES, **({"keep": [0, 1]} | options))


def test_data_are_needed():
    with pytest.raises(ConfigError, match="counts the tokens of data"):
        prune_core.prune(model(), "token_frequency", sparsity=0.5, example_inputs=BATCHES[0])

"""How much each round prunes, and what a config may say about rounds."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prune_core import ConfigError
from prune_core.rounds import sparsity_after, take_rounds
from prune_lottery import LotteryTicket
from prune_lottery.history import MaskHistory

ENTRY = {"op_types": ["Linear"], "sparsity": 0.8}


@given(st.integers(1, 30), st.floats(0.01, 0.99))
def test_every_round_prunes_the_same_share_of_what_survives(rounds, final):
    left = [1 - sparsity_after(t, rounds, final) for t in range(rounds + 1)]
    assert left[0] == 1
    assert 1 - left[-1] == pytest.approx(final)
    for before, after in pairwise(left):
        assert 1 - after / before == pytest.approx(1 - (1 - final) ** (1 / rounds), abs=1e-9)


def test_the_last_round_reaches_the_asked_sparsity_exactly():
    assert all(sparsity_after(n, n, p / 100) == p / 100 for n in (1, 3, 10) for p in range(100))


def test_the_config_says_how_many_rounds():
    rules, rounds = take_rounds([ENTRY | {"prune_iterations": 5}], None)
    assert (rules, rounds) == ([ENTRY], 5)


@pytest.mark.parametrize(
    ("config", "rounds", "message"),
    [
        ([ENTRY], None, "Nothing says how many rounds there are; give rounds=10"),
        (
            [ENTRY | {"prune_iterations": 5}, ENTRY | {"prune_iterations": 4}],
            None,
            r"config_list\[0\]\['prune_iterations'\] is 5 and config_list\[1\]"
            r"\['prune_iterations'\] is 4; all layers go through the same rounds",
        ),
        ([ENTRY | {"prune_iterations": 5}], 6, "rounds is 6 and .* is 5"),
        ([ENTRY | {"prune_iterations": 0}], None, "must be a whole number of at least 1"),
        ([ENTRY], 0, "rounds is 0; it must be a whole number from 1 to 254"),
        ([ENTRY], 255, "rounds is 255"),
        ([ENTRY], True, "rounds is True"),
    ],
)
def test_what_is_wrong_is_said(config, rounds, message):
    with pytest.raises(ConfigError, match=message):
        take_rounds(config, rounds)


def test_masks_of_all_rounds_come_back_from_one_byte_each():
    def masks(*bits):
        return {"a": {"weight": torch.tensor(bits, dtype=torch.bool)}}

    history = MaskHistory()
    assert history.record(1, masks(1, 1, 0, 1)) == 0
    assert history.record(2, masks(0, 1, 0, 1)) == 0
    assert history.record(3, masks(0, 0, 1, 1)) == 1, "one would come back"
    assert history.masks(0)["a"]["weight"].tolist() == [True] * 4
    assert history.masks(1)["a"]["weight"].tolist() == [True, True, False, True]
    assert history.masks(2)["a"]["weight"].tolist() == [False, True, False, True]
    assert history.masks(3)["a"]["weight"].tolist() == [False, False, False, True]
    history.forget(2)
    assert history.masks(3)["a"]["weight"].tolist() == [True, True, False, True]


def test_a_wrong_config_leaves_the_model_plain(net, config):
    with pytest.raises(ConfigError, match="op_types"):
        LotteryTicket(
            net,
            [{"op_types": ["Conv2d"], "sparsity": 0.5}],
            rounds=2,
            pruning_algorithm="tiny_level",
        )
    assert type(net.first) is torch.nn.Linear
    with pytest.raises(ConfigError, match="rewind is 'erly:5'"):
        LotteryTicket(net, config, rounds=2, rewind="erly:5", pruning_algorithm="tiny_level")
    assert type(net.first) is torch.nn.Linear

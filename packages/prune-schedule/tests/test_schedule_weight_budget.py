"""Sparsities that are fitted to a budget of weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_core import ConfigError
from prune_core.amount import number_to_prune
from prune_speedup.search.pieces import Piece
from prune_speedup.search.weights import WeightBudget


def weights(shares, sizes, total, caps, floors=None, pieces=None):
    """Fit sparsities to a budget of the weights of all layers."""
    budget = WeightBudget([(list(sizes), total)], sizes, caps, pieces)
    return budget, budget.fitted(shares, floors or dict.fromkeys(sizes, 0.0))


def test_a_budget_by_hand():
    # 200 weights, half of them to go: b may lose 60 of its 100, so a loses 40.
    shares, sizes = {"a": 1, "b": 3}, {"a": 100, "b": 100}
    assert weights(shares, sizes, 0.5, {"a": 0.9, "b": 0.6})[1] == {"a": 0.4, "b": 0.6}
    assert weights(shares, sizes, 0.5, {"a": 0.9, "b": 0.9})[1] == {"a": 0.25, "b": 0.75}
    floors = {"a": 0.3, "b": 0.0}
    assert weights(shares, sizes, 0.2, {"a": 0.9, "b": 0.9}, floors)[1] == {"a": 0.3, "b": 0.1}


def test_a_budget_of_whole_channels_by_hand():
    # Filters of 10 and of 30 weights, 4 and 8 of them: of 280 weights 140 are to go. The same
    # ratio of both is 2 and 4 filters, 20 + 120 weights.
    sizes = {"a": 40, "b": 240}
    pieces = [Piece(4, {"a": 10}), Piece(8, {"b": 30})]
    caps = {"a": 0.99, "b": 0.99}
    equal = {"a": 1, "b": 1}
    assert weights(equal, sizes, 0.5, caps, pieces=pieces)[1] == {"a": 0.5, "b": 0.5}
    # 126 are to go: 45 % would be 1 and 3 filters, 100 weights. At 50 % both get another one, and
    # that of b is enough.
    budget, plan = weights(equal, sizes, 0.45, caps, pieces=pieces)
    assert plan == {"a": 0.25, "b": 0.5}
    assert budget.left(plan) == {"entry 0": 1 - 130 / 280}
    # One layer alone: 30 weights of b are one filter, and 40 are two.
    nothing = {"a": 0.0, "b": 0.0}
    assert budget.reduced(nothing, ["b"], "entry 0", 250 / 280) == {"a": 0.0, "b": 1 / 8}
    assert budget.reduced(nothing, ["b"], "entry 0", 240 / 280) == {"a": 0.0, "b": 2 / 8}
    assert budget.reduced(nothing, ["a"], "entry 0", 240 / 280) is None


@given(
    layers=st.lists(
        st.tuples(st.floats(0, 1), st.integers(1, 40), st.integers(1, 50), st.floats(0.1, 0.99)),
        min_size=1,
        max_size=8,
    ),
    part=st.floats(0, 0.999),
)
def test_a_budget_is_met_within_a_piece_and_no_cap_is_passed(layers, part):
    names = [str(i) for i in range(len(layers))]
    shares, parts, each, caps = (
        dict(zip(names, column, strict=True)) for column in zip(*layers, strict=True)
    )
    pieces = [Piece(parts[n], {n: each[n]}) for n in names]
    sizes = {n: parts[n] * each[n] for n in names}
    everything = sum(sizes.values())
    most = sum(number_to_prune(caps[n], parts[n]) * each[n] for n in names)
    total = part * most / everything
    budget, found = weights(shares, sizes, total, caps, pieces=pieces)
    masked = sum(piece.masked(found) * each[n] for n, piece in zip(names, pieces, strict=True))
    wanted = number_to_prune(total, everything)
    assert wanted <= masked < wanted + max(each.values())
    assert all(-1e-9 <= found[n] <= caps[n] + 1e-9 for n in names)
    assert budget.left(found)["entry 0"] <= budget.target["entry 0"] + 1e-9


def test_a_budget_that_caps_do_not_allow():
    with pytest.raises(ConfigError, match="may lose 60.0% .* 70.0% is asked for"):
        weights({"a": 1}, {"a": 10}, 0.7, {"a": 0.6})
    # 99 % of four filters are three.
    with pytest.raises(ConfigError, match="may lose 75.0% .* in whole channels .* 80.0%"):
        weights({"a": 1}, {"a": 40}, 0.8, {"a": 0.99}, pieces=[Piece(4, {"a": 10})])

"""How many are pruned: exactly what the ratio says."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_core.amount import number_to_prune


@pytest.mark.parametrize(
    ("sparsity", "n", "pruned"),
    [(0.29, 100, 29), (0.57, 100, 57), (0.5, 5, 2), (0.7, 10, 7), (0.0, 9, 0), (0.99, 10, 9)],
)
def test_by_hand(sparsity, n, pruned):
    assert number_to_prune(sparsity, n) == pruned


@given(st.integers(0, 10_000), st.integers(0, 10**9))
def test_a_ratio_of_four_digits_is_exact(digits, n):
    sparsity = digits / 10_000
    assert number_to_prune(sparsity, n) == int(Decimal(digits) * n / 10_000)

"""Sums over the rows that went into a layer, and what is made of them once."""

import torch

from prune_toolkit.calibration.statistics import Statistics

ROWS = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def seen(rows=ROWS):
    sums, squares = rows.sum(0, keepdim=True), rows.square().sum(0, keepdim=True)
    return Statistics(len(rows), sums, squares, (rows.T @ rows).unsqueeze(0))


def test_what_is_asked_for_twice_is_made_once_until_a_batch_is_added():
    statistics, made = seen(), []

    def make():
        made.append(statistics.rows)
        return statistics.rows

    assert [statistics.once("rows", make) for _ in range(3)] == [10, 10, 10]
    assert made == [10]
    statistics.add(seen(ROWS[:4]))
    assert statistics.once("rows", make) == 14


def test_the_gram_matrix_is_taken_without_a_copy():
    statistics, expected = seen(), seen().gram
    memory = statistics.products.data_ptr()
    taken = statistics.take_gram()
    assert taken.data_ptr() == memory
    torch.testing.assert_close(taken, expected)
    assert statistics.products is None

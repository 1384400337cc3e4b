"""What operators are given when they work in wider numbers than their own."""

import pytest
import torch

from prune_speedup.torch.record import higher_precision
from prune_speedup.torch.record.higher_precision import Wider
from prune_speedup.torch.record.operators import operator_of

aten = torch.ops.aten


@pytest.fixture
def wider():
    return Wider(torch.float32)


def test_a_slice_is_picked_first_and_widened_where_something_is_computed_with_it(wider):
    experts = torch.randn(8, 4, 4).bfloat16()
    picked = wider.run(operator_of(aten.select.int), (experts, 0, 3), {})
    assert picked.data_ptr() == experts[3].data_ptr()  # not eight times as many numbers
    made = wider.run(operator_of(aten.mm.default), (picked, picked), {})
    assert made.dtype == torch.float32
    assert torch.equal(made, experts[3].float() @ experts[3].float())


def test_of_a_table_only_the_rows_that_are_looked_up_are_widened(wider):
    table = torch.randn(100, 4).bfloat16()
    places = torch.tensor([[3, 7]])
    made = wider.run(operator_of(aten.embedding.default), (table, places), {})
    assert made.dtype == torch.float32
    assert torch.equal(made, table.float()[places])


def test_what_is_written_into_stays_as_it_is(wider):
    cache, new = torch.zeros(3).bfloat16(), torch.ones(3).bfloat16()
    copy = operator_of(aten.copy_.default)
    (written, read), _ = wider.arguments(copy, (cache, new), {})
    assert written is cache
    assert read.dtype == torch.float32


@pytest.mark.parametrize("turned", [False, True])
def test_memory_is_used_again_by_the_next_operator(wider, monkeypatch, turned):
    monkeypatch.setattr(higher_precision, "_LARGE", 0)
    mm = operator_of(aten.mm.default)
    one, two = torch.randn(4, 4).bfloat16(), torch.randn(4, 4).bfloat16()
    wider.run(mm, (one, one), {})  # from here on there is room for two
    (left, right), _ = wider.arguments(mm, (one, two.t() if turned else two), {})
    assert torch.equal(left, one.float())
    assert torch.equal(right, two.float().t() if turned else two.float())
    (again, _), _ = wider.arguments(mm, (two, two), {})
    assert again.data_ptr() == left.data_ptr()
    assert torch.equal(again, two.float())


def test_what_is_not_dense_gets_memory_of_its_own(wider, monkeypatch):
    monkeypatch.setattr(higher_precision, "_LARGE", 0)
    columns = torch.randn(4, 8).bfloat16()[:, ::2]
    (left, right), _ = wider.arguments(operator_of(aten.mul.Tensor), (columns, columns), {})
    assert torch.equal(left, columns.float())
    assert left.data_ptr() != right.data_ptr()

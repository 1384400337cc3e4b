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
@pytest.mark.parametrize("columns", [5, 6, 40])
def test_a_large_matrix_is_widened_block_by_block(wider, monkeypatch, turned, columns):
    monkeypatch.setattr(higher_precision, "_BLOCK", 12)  # three columns of four
    x, bias = torch.randn(2, 4), torch.randn(columns).bfloat16()
    weight = torch.randn(columns, 4).bfloat16()
    right = weight.t() if turned else weight.t().contiguous()
    made = wider.run(operator_of(aten.mm.default), (x, right), {})
    assert torch.allclose(made, x @ right.float(), atol=1e-6)
    assert made.is_contiguous()
    again = wider.run(operator_of(aten.addmm.default), (bias, x, right), {})
    assert torch.allclose(again, made + bias.float(), atol=1e-6)

"""What operators are given when they work in wider numbers than their own."""

import torch

from prune_speedup.torch.record.higher_precision import wide_arguments

aten = torch.ops.aten


def test_a_slice_is_picked_first_and_widened_where_something_is_computed_with_it():
    experts = torch.randn(8, 4, 4).bfloat16()
    (source, *_), _ = wide_arguments(aten.select.int, (experts, 0, 3), {}, torch.float32)
    assert source is experts  # and not eight times as many numbers as are wanted
    (left, right), _ = wide_arguments(aten.mm.default, (experts[3], experts[3]), {}, torch.float32)
    assert left.dtype == right.dtype == torch.float32
    assert torch.equal(left, experts[3].float())


def test_what_is_written_into_stays_as_it_is():
    cache, new = torch.zeros(3).bfloat16(), torch.ones(3).bfloat16()
    (written, read), _ = wide_arguments(aten.copy_.default, (cache, new), {}, torch.float32)
    assert written is cache
    assert read.dtype == torch.float32

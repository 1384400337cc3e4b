"""What is held along each axis of a mask, and whole rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prune_core.masking import PrunerModuleWrapper
from prune_core.masking.slices import (
    all_of,
    are_full_rows,
    count_alive,
    covers_zeros,
    held_along,
    in_rows,
    is_in_rows,
    whole_rows,
    zeros_along,
)


@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (4, 3, 2, 2), (1, 3, 1), (0, 3), (3, 0)])
def test_what_is_held_along_an_axis_is_any_over_the_others(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 0.2, 0.9, 1.0):
        mask = torch.rand(shape, generator=generator) < share
        if len(shape) == 4:
            mask = mask.contiguous(memory_format=torch.channels_last)
        found = held_along(mask)
        assert len(found) == len(shape)
        for axis, held in enumerate(found):
            others = [other for other in range(mask.ndim) if other != axis]
            expected = mask.movedim(axis, 0).flatten(1).any(1) if others else mask
            assert torch.equal(held, expected)
        assert all_of(mask) == bool(mask.all())


def test_rows_are_whole_or_there_are_none() -> None:
    mask = torch.zeros(4, 3, 2, dtype=torch.bool)
    mask[1] = True
    rows = whole_rows(mask)
    assert rows is not None
    assert rows.tolist() == [False, True, False, False]
    assert are_full_rows(mask, np.array([1, 1]))
    assert not are_full_rows(mask, np.array([1, 2]))
    assert not are_full_rows(mask)
    mask[2, 0, 0] = True
    assert whole_rows(mask) is None
    assert whole_rows(torch.tensor(True)) is None
    assert whole_rows(mask.flip(0)[1:]) is None, "though its first row tells nothing else"
    assert whole_rows(torch.ones(0, 3, dtype=torch.bool)) is not None
    assert not are_full_rows(mask, np.array([1, 2]))
    assert are_full_rows(mask[:, 0, 0], np.array([1, 2]))
    assert are_full_rows(mask[1])
    for row in (mask[1], mask[2]):
        repeated = row.expand(4, 3, 2)
        assert are_full_rows(repeated, np.array([1, 3])) == bool(row.all())
        assert are_full_rows(repeated, np.array([], dtype=np.int64))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("single", [False, True])
def test_zeros_are_written_and_taken_back_in_rows_as_one_by_one(
    order: torch.memory_format, single: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3).to(memory_format=order)
    before = layer.weight.detach().clone()
    mask = torch.ones_like(before, dtype=torch.bool)
    mask[1] = False
    mask[3, 1, 1, 1] = not single
    wrapper = PrunerModuleWrapper(layer, "layer", {})
    wrapper.set_masks({"weight": mask})
    wrapper.apply_masks()
    assert torch.equal(layer.weight, before * mask)
    wrapper.restore_dense()
    assert torch.equal(layer.weight, before)


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["rows", "columns", "values", "none"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)
def test_a_view_of_rows_is_the_mask_and_counts_as_it_does(
    shape: tuple[int, ...], seed: int, kind: str, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sign = 1 - 2 * torch.randint(0, 2, shape, generator=generator)
    numbers = torch.randint(0, 2, shape, generator=generator).to(dtype) * sign  # some are -0.0
    some = torch.randint(0, 2, shape, generator=generator).bool()
    first = some.reshape(shape[0], -1)[:, 0].reshape(-1, *[1] * (len(shape) - 1))
    every = torch.ones(1, dtype=torch.bool)
    ways = {"rows": first, "columns": some[:1], "values": some, "none": every}
    mask = ways[kind].expand(shape).contiguous()
    view = in_rows(mask)
    assert torch.equal(view, mask)
    if kind == "rows":
        assert is_in_rows(view)
    alive = (numbers != 0) & mask
    for each in (mask, view, ways[kind].expand(shape)):
        assert count_alive(numbers, each) == int(alive.sum())
        assert covers_zeros(each, numbers) == (not bool(((numbers != 0) & ~mask).any()))
        zero = [
            (~alive.movedim(axis, 0).reshape(size, -1).any(1)).tolist()
            for axis, size in enumerate(shape)
        ]
        found = zeros_along(numbers, each)
        assert {axis: each.tolist() for axis, each in found.items()} == {
            axis: each for axis, each in enumerate(zero) if any(each)
        }
    assert count_alive(numbers) == int((numbers != 0).sum())


def test_a_mask_that_repeats_itself_is_copied_when_it_comes_into_force() -> None:
    wrapper = PrunerModuleWrapper(nn.Linear(3, 2), "layer", {})
    wrapper.set_masks({"weight": torch.tensor([[True], [False]]).expand(2, 3)})
    wrapper.weight_mask[0, 0] = False
    assert wrapper.masks["weight"].tolist() == [[False, True, True], [False, False, False]]

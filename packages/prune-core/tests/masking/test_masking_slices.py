"""What is held along each axis of a mask, and whole rows."""

import pytest
import torch
from torch import nn

from prune_core.masking import PrunerModuleWrapper
from prune_core.masking.slices import all_of, full_rows, held_along, whole_rows


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
    assert full_rows(mask).tolist() == rows.tolist()
    mask[2, 0, 0] = True
    assert whole_rows(mask) is None
    assert whole_rows(torch.tensor(True)) is None
    assert full_rows(mask).tolist() == [False, True, False, False]
    assert full_rows(mask[:, 0, 0]).tolist() == [False, True, True, False]


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

"""Products of features, summed in a way that depends on what a convolution looks like."""

import pytest
import torch
from torch import nn

from prune_toolkit.calibration import layers, products
from prune_toolkit.calibration.layers import rows_of
from prune_toolkit.calibration.products import add_products

LONG = [
    (nn.Conv1d(3, 4, 5), (4, 3, 20)),
    (nn.Conv1d(4, 4, 5, groups=2, padding=2), (4, 4, 20)),
    (nn.Conv1d(4, 4, 3, stride=2, dilation=2), (4, 4, 40)),
    (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 16, 16)),
    (nn.Conv2d(6, 6, (5, 2), groups=3, stride=(1, 2)), (2, 6, 30, 16)),
    (nn.Conv2d(6, 4, (2, 7), padding=(1, 3), padding_mode="circular"), (2, 6, 30, 16)),
    (nn.Conv3d(2, 4, 3, padding=1), (2, 2, 12, 12, 12)),
]
OTHERS = [
    (nn.Linear(5, 3), (4, 7, 5)),
    (nn.Conv1d(3, 4, 5, stride=2), (4, 3, 20)),
    (nn.Conv2d(3, 4, 1), (2, 3, 8, 8)),
    (nn.Conv2d(3, 4, 7, padding=3), (2, 3, 4, 4)),  # hardly more places than it is wide
    (nn.Conv1d(3, 4, 5), (3, 20)),  # one sample
]


def found_and_wanted(layer, shape):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    wanted = sum(rows.double().transpose(1, 2) @ rows.double() for rows in rows_of(layer, inputs))
    found = torch.ones_like(wanted)
    add_products(found, layer, inputs)
    return found - 1, wanted


@pytest.mark.parametrize(("layer", "shape"), LONG + OTHERS, ids=str)
def test_they_are_those_of_the_unfolded_rows(layer, shape):
    found, wanted = found_and_wanted(layer, shape)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert torch.equal(found, found.transpose(1, 2)) or torch.allclose(found, found.transpose(1, 2))


@pytest.mark.parametrize(("layer", "shape"), LONG, ids=str)
def test_a_long_kernel_is_not_unfolded_for_every_product(layer, shape, monkeypatch):
    monkeypatch.setattr(products, "rows_of", None)  # the way of all other layers
    found_and_wanted(layer, shape)


def test_pieces_of_bounded_size_add_up(monkeypatch):
    layer, shape = LONG[3]
    _, wanted = found_and_wanted(layer, shape)
    monkeypatch.setattr(layers, "_PIECE", 64)
    found, _ = found_and_wanted(layer, shape)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)

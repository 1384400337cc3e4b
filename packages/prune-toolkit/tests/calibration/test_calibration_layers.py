"""Each layer is a product of rows of features and a matrix, whatever kind it is."""

import pytest
import torch
from torch import nn

from prune_toolkit.calibration.layers import (
    INPUT_TYPES,
    bias_name,
    first_input,
    has_bias,
    is_layer,
    matrix_of,
    row_mask,
    rows_of,
    sums_of,
    weight_of,
)


class Conv1D(nn.Module):
    """As transformers has it: a linear layer that stores its weight the other way round."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (4, 7, 5)),
    "linear without samples": (lambda: nn.Linear(5, 3), (5,)),
    "Conv1D": (lambda: Conv1D(3, 5), (4, 7, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "conv1d, same, circular": (
        lambda: nn.Conv1d(4, 4, 5, padding="same", padding_mode="circular", groups=4),
        (3, 4, 12),
    ),
    "conv2d": (lambda: nn.Conv2d(3, 4, (2, 3)), (2, 3, 5, 6)),
    "conv2d, stride, padding, dilation, groups": (
        lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
        (3, 4, 9, 11),
    ),
    "conv2d, reflect": (
        lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"),
        (2, 2, 5, 6),
    ),
    "conv2d without samples": (lambda: nn.Conv2d(3, 4, 3), (3, 6, 6)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), (2, 6, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1)), (2, 2, 4, 5, 6)),
}


def layer_and_input(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    return make(), torch.randn(shape)


def channels_last(layer, outputs):
    """The outputs as rows, one for each sample and place."""
    kernel = getattr(layer, "kernel_size", ())
    outputs = outputs.movedim(-1 - len(kernel), -1)
    return outputs.reshape(-1, outputs.shape[-1])


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_the_matrix_are_the_outputs(name):
    layer, x = layer_and_input(name)
    weight = layer.weight.detach()
    rows = torch.cat(list(rows_of(layer, x)), 1)
    found = (rows @ matrix_of(layer, weight).transpose(1, 2)).permute(1, 0, 2).flatten(1)
    expected = channels_last(
        layer,
        layer(x).detach()
        - layer.bias.detach().view(-1, *[1] * len(getattr(layer, "kernel_size", ()))),
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_a_matrix_goes_back_into_the_shape_of_the_weight(name):
    layer, _ = layer_and_input(name)
    assert torch.equal(weight_of(layer, matrix_of(layer, layer.weight)), layer.weight)


@pytest.mark.parametrize("name", LAYERS)
def test_sums_without_unfolding_are_those_of_the_rows(name):
    layer, x = layer_and_input(name)
    rows = torch.cat(list(rows_of(layer, x)), 1).double()
    count, sums, squares = sums_of(layer, x, torch.float64)
    assert count == rows.shape[1]
    torch.testing.assert_close(sums, rows.sum(1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(squares, rows.square().sum(1), atol=1e-6, rtol=1e-6)


def test_rows_come_in_pieces_of_bounded_size(monkeypatch):
    layer, x = layer_and_input("conv2d")
    whole = torch.cat(list(rows_of(layer, x)), 1)
    monkeypatch.setattr("prune_toolkit.calibration.layers._PIECE", 18)
    pieces = list(rows_of(layer, x))
    assert len(pieces) == 2  # one for each sample: no less can be unfolded
    assert torch.equal(torch.cat(pieces, 1), whole)
    linear, rows = layer_and_input("linear")
    pieces = list(rows_of(linear, rows))
    assert max(piece.numel() for piece in pieces) <= 18
    assert torch.equal(torch.cat(pieces, 1)[0], rows.flatten(0, 1))


def test_an_embedding_is_fed_rows_with_a_single_one():
    layer, words = nn.Embedding(6, 3), torch.tensor([[0, 1, 1], [5, 1, 0]])
    count, sums, squares = sums_of(layer, words, torch.float64)
    assert count == 6
    assert sums.tolist() == squares.tolist() == [[2, 3, 0, 0, 0, 1]]
    assert matrix_of(layer, layer.weight).shape == (1, 3, 6)
    assert torch.equal(weight_of(layer, matrix_of(layer, layer.weight)), layer.weight)


def test_attention_is_understood_where_queries_keys_and_values_are_one():
    attention, x = nn.MultiheadAttention(4, 2), torch.randn(3, 2, 4)
    assert is_layer(attention)
    assert first_input(attention, (x, x), {"value": x}) is x
    assert first_input(attention, (x, x, x.clone()), {}) is None
    assert matrix_of(attention, attention.in_proj_weight).shape == (1, 12, 4)
    assert bias_name(attention) == "in_proj_bias"
    assert not is_layer(nn.MultiheadAttention(4, 2, kdim=3))


def test_what_is_no_layer():
    for module in (nn.LSTM(2, 2), nn.ConvTranspose2d(2, 2, 2), nn.BatchNorm2d(2), nn.ReLU()):
        assert not is_layer(module)
    assert set(INPUT_TYPES) > {"Linear", "Conv2d", "Embedding"}
    assert has_bias(nn.Linear(2, 2))
    assert not has_bias(nn.Linear(2, 2, bias=False))


def test_padding_says_which_rows_count():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    linear, tokens = nn.Linear(4, 2), torch.randn(2, 3, 4)
    expected = [True, True, False, True, False, False]
    assert row_mask(linear, tokens, mask).tolist() == expected
    assert row_mask(linear, tokens.flatten(0, 1), mask).tolist() == expected
    assert row_mask(nn.Embedding(5, 4), torch.zeros(2, 3).long(), mask).tolist() == expected
    # Attention that has the tokens first, and what is laid out otherwise or is no sequence.
    attention = nn.MultiheadAttention(4, 2)
    by_token = row_mask(attention, tokens.transpose(0, 1), mask)
    assert by_token.tolist() == [True, True, True, False, False, False]
    assert row_mask(linear, torch.randn(4, 4), mask) is None
    assert row_mask(nn.Conv1d(4, 2, 1), torch.randn(2, 4, 3), mask) is None
    assert row_mask(linear, tokens, None) is None
    count, sums, _ = sums_of(linear, tokens, torch.float64, row_mask(linear, tokens, mask))
    assert count == 3
    kept = tokens[mask.bool()].double()
    torch.testing.assert_close(sums[0], kept.sum(0))

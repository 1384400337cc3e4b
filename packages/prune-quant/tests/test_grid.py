"""Rounding: zeros stay zeros, errors are half a step, gradients go where papers say."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from prune_quant.rounding.fake import LearnedStep, MovingRange, OwnRange
from prune_quant.rounding.few_bits import SignWeight, TanhWeight
from prune_quant.rounding.grid import affine, on_grid, signed, symmetric_scale, unsigned

weights = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4), min_size=1, max_size=5
).map(torch.tensor)
kept = st.integers(0, 2**20 - 1)


@given(weights, kept, st.integers(2, 16))
def test_zeros_of_weights_stay_zeros(weight, bits_kept, bits):
    mask = torch.tensor([bits_kept >> at & 1 for at in range(weight.numel())]).view(weight.shape)
    pruned = weight * mask
    for quantizer in (OwnRange(bits, axis=0), TanhWeight(bits), SignWeight(1)):
        quantizer.active = True
        rounded = quantizer(pruned)
        assert rounded.isfinite().all()
        assert not rounded[pruned == 0].any()


@given(weights, st.integers(2, 16))
def test_no_value_moves_by_more_than_half_a_step(weight, bits):
    scale = symmetric_scale(weight, signed(bits).high, axis=0)
    rounded = on_grid(weight, scale, torch.tensor(0.0), *signed(bits), axis=0)
    limit = scale[:, None] * (0.5 + 2e-2)  # and what float32 itself loses, with 16 bits
    assert ((rounded - weight).abs() <= limit).all()


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.integers(2, 8))
def test_zero_is_on_the_grid_of_any_range(a, b, bits):
    step, zero = affine(torch.tensor(min(a, b)), torch.tensor(max(a, b)), unsigned(bits))
    assert step > 0
    assert 0 <= zero <= unsigned(bits).high
    assert on_grid(torch.zeros(3), step, zero, *unsigned(bits)).abs().max() == 0


def test_gradients_pass_within_the_range_and_stop_beyond():
    x = torch.tensor([0.26, 50.0, -50.0], requires_grad=True)
    on_grid(x, torch.tensor(0.1), torch.tensor(0.0), -127, 127).sum().backward()
    assert x.grad.tolist() == [1, 0, 0]


def test_the_gradient_of_a_learned_step_is_that_of_the_paper():
    # d/ds of s * round(x / s): round(x / s) - x / s within the range, the end of it beyond.
    quantizer = LearnedStep(3, weight=True)  # integers from -4 to 3
    x = torch.tensor([0.26, 99.0, -99.0, 0.0])
    with torch.no_grad():
        quantizer.scale.fill_(0.1)
    quantizer.active = quantizer.seen = True
    quantizer(x).sum().backward()
    expected = (3 - 2.6) + 3 - 4 + 0
    share = 1 / (4 * 3) ** 0.5
    torch.testing.assert_close(quantizer.scale.grad, torch.tensor(expected * share))


def test_a_learned_step_begins_with_what_is_not_pruned():
    quantizer = LearnedStep(8, weight=True)
    quantizer.look(torch.tensor([0.0, 0.0, 0.0, 2.0, -4.0]))
    torch.testing.assert_close(float(quantizer.scale.detach()), 2 * 3.0 / 127**0.5)


def test_a_moving_range_follows_slowly_and_only_in_training():
    quantizer = MovingRange(8)
    quantizer(torch.tensor([0.0, 1.0]))
    quantizer(torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(float(quantizer.largest), 1.01)
    quantizer.eval()(torch.tensor([0.0, 99.0]))
    torch.testing.assert_close(float(quantizer.largest), 1.01)


def test_dorefa_is_its_formula():
    x = torch.linspace(-2, 2, 9)
    squeezed = x.tanh() / (2 * x.tanh().abs().max()) + 0.5
    expected = 2 * (squeezed * 15).round() / 15 - 1
    expected[x == 0] = 0  # what is pruned
    torch.testing.assert_close(TanhWeight(4).rounded(x), expected)


def test_half_precision_keeps_its_type():
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.randn(4, 8, dtype=dtype)
        quantizer = OwnRange(8, axis=0)
        quantizer.active = True
        rounded = quantizer(x)
        assert rounded.dtype == dtype
        assert not torch.equal(rounded, x)

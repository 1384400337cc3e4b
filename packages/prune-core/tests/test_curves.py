import pytest

from prune_core import curves

EVERY_CURVE = [getattr(curves, name) for name in curves.__all__]


@pytest.mark.parametrize("curve", EVERY_CURVE)
@pytest.mark.parametrize(("initial", "final"), [(0.0, 0.8), (0.25, 0.5), (0.5, 0.5), (1.0, 1.0)])
def test_every_curve_ends_at_the_final_sparsity(curve, initial, final):
    assert curve(1.0, initial, final) == pytest.approx(final)


@pytest.mark.parametrize("curve", [c for c in EVERY_CURVE if c is not curves.constant])
def test_every_curve_but_the_constant_one_begins_at_the_initial_sparsity(curve):
    assert curve(0.0, 0.2, 0.8) == pytest.approx(0.2)


@pytest.mark.parametrize("curve", EVERY_CURVE)
def test_no_curve_ever_gives_weights_back(curve):
    values = [curve(step / 100, 0.1, 0.9) for step in range(101)]
    assert values == sorted(values)


def test_half_way():
    assert curves.constant(0.5, 0.0, 0.8) == 0.8
    assert curves.linear(0.5, 0.0, 0.8) == pytest.approx(0.4)
    assert curves.cubic(0.5, 0.0, 0.8) == pytest.approx(0.7)  # 0.8 - 0.8 · 0.5³
    assert curves.geometric(0.5, 0.0, 0.75) == pytest.approx(0.5)  # half of it, and half of that


def test_a_curve_is_found_by_its_name():
    from prune_core import get_schedule

    assert get_schedule("cubic") is curves.cubic

"""When sparsity grows, and how far: arithmetic that can be checked by hand."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_core import ConfigError, UnknownNameError
from prune_core.amount import number_to_prune
from prune_core.curves import cubic, linear
from prune_core.timetable import Timetable, as_curve, value


def rounds(curve, final, n):
    return [Timetable(0.0, final, 0, n + 1).sparsity(t, curve) for t in range(n + 1)]


def test_ten_epochs_end_with_the_final_sparsity_in_the_tenth():
    growth = Timetable(0.0, 0.8, start=0, end=10, unit="epoch")
    assert growth.sparsity(8, linear) < 0.8
    assert growth.sparsity(9, linear) == 0.8
    assert growth.sparsity(10, linear) == growth.sparsity(99, linear) == 0.8


def test_nothing_happens_before_the_start():
    growth = Timetable(0.2, 0.8, start=3, end=6, unit="epoch")
    assert [growth.sparsity(epoch, linear) for epoch in range(6)] == [0, 0, 0, 0.2, 0.5, 0.8]


def test_between_two_points_the_earlier_one_holds():
    growth = Timetable(0.0, 0.5, start=1, end=12, frequency=5, unit="step")
    assert [growth.sparsity(step, linear) for step in (0, 1, 5, 6, 10, 11)] == [
        *(0, 0, 0, 0.25, 0.25, 0.5)
    ]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1), (4, 4), (4, 5)])
def test_a_schedule_of_one_point_goes_to_the_final_sparsity(start, end):
    assert Timetable(0.1, 0.7, start, end).sparsity(start, cubic) == 0.7


@given(
    percent=st.integers(0, 99),
    total=st.integers(1, 50),
    n=st.integers(1, 20_000),
    data=st.data(),
)
def test_no_rounding_error_ever_changes_a_count(percent, total, n, data):
    t = data.draw(st.integers(0, total))
    share = Fraction(t, total)
    exact = {linear: share, cubic: 1 - (1 - share) ** 3}
    for curve, fraction in exact.items():
        found = number_to_prune(rounds(curve, percent / 100, total)[t], n)
        assert found == floor(Fraction(percent, 100) * fraction * n)


def test_a_curve_by_name_or_any_function():
    assert as_curve("cubic") is cubic
    mine = lambda progress, initial, final: final * progress**2  # noqa: E731
    assert as_curve(mine) is mine
    assert value(mine, 0.5, 0.0, 0.8) == pytest.approx(0.2)


def test_a_curve_that_is_not_one_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'cubic'"):
        as_curve("cubik")
    with pytest.raises(ConfigError, match="curve is 3; it must be the name"):
        as_curve(3)


@pytest.mark.parametrize("wrong", [1.0, -0.1, float("nan"), float("inf"), None, "half"])
def test_a_curve_that_leaves_the_range_is_told_so(wrong):
    with pytest.raises(ConfigError, match=r"at progress 0.5 .*at least 0 and less than 1"):
        value(lambda progress, initial, final: wrong, 0.5, 0.0, 0.8)

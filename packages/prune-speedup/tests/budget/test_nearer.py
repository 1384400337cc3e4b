"""The last step to a budget is taken by no more families than have to."""

from prune_speedup.budget.ratios import nearer


def left(sizes, ratios):
    """How many units there are when each family loses its ratio."""
    return [size - int(ratio * size + 1e-9) for size, ratio in zip(sizes, ratios, strict=True)]


def test_families_that_are_alike_give_back_what_is_not_needed():
    sizes = [8, 8, 8]
    found = nearer(0.5, [(8, 1)] * 3, lambda ratios: sum(left(sizes, ratios)) <= 13)
    assert left(sizes, found) == [5, 4, 4]


def test_a_family_that_lost_nothing_at_the_last_step_is_left_as_it_is():
    # Of 10 units, 5 go at 0.5 and at 0.55 alike; of 20 the eleventh goes at 0.55.
    found = nearer(0.55, [(10, 1), (20, 1)], lambda ratios: True)
    assert left([10, 20], found) == [5, 10]


def test_widths_that_are_multiples_stay_so():
    found = nearer(0.5, [(16, 4), (16, 4)], lambda ratios: sum(left([16, 16], ratios)) <= 20)
    assert left([16, 16], found) == [12, 8]

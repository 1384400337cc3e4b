"""Groups of one axis are lines; whatever is done to them is what their codes would say."""

from itertools import permutations
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Meta
from prune_speedup.engine.labels import Labels
from prune_speedup.engine.values import (
    CONSTANT,
    UNIFORM,
    UNKNOWN,
    ZERO,
    Group,
    Value,
    encode,
    spread,
)
from prune_speedup.torch.rules import TORCH
from prune_speedup.torch.rules.movement import _axes_folded

STATES = (ZERO, UNIFORM, CONSTANT, UNKNOWN)


def by_codes(axis, labels, states, shape):
    return Group(spread(encode(np.array(labels), np.array(states)), axis, shape))


def same(one, other):
    return (
        one.axes == other.axes
        and one.shape == other.shape
        and one.compact().shape == other.compact().shape
        and one.compact().tolist() == other.compact().tolist()
        and one.states().tolist() == other.states().tolist()
        and one.codes.tolist() == other.codes.tolist()
        and one.line.tolist() == other.compact().ravel().tolist()
    )


@given(st.integers(0, 2), st.lists(st.sampled_from(STATES), min_size=2, max_size=5), st.data())
def test_a_group_is_the_same_by_its_line_and_by_its_codes(axis, states, data):
    shape = [2, 3, 1]
    shape[axis] = len(states)
    labels = data.draw(st.permutations(range(1, len(states) + 1)))
    line = Group.along(axis, np.array(labels), np.array(states), tuple(shape))
    codes = by_codes(axis, labels, states, tuple(shape))
    assert same(line, codes)
    for state in STATES:
        assert same(line.at_least(state), codes.at_least(state))
        assert same(line.with_states(state), codes.with_states(state))
        known = [max(each, state) if each else each for each in states]
        assert line.at_least(state).states().ravel().tolist() == known
    assert same(line.only({axis}), codes.only({axis}))
    assert line.only(set()).axes == codes.only(set()).axes == ()


@pytest.mark.parametrize("state", STATES)
def test_what_is_known_of_all_is_kept_as_one(state):
    codes = by_codes(1, [1, 2, 3], [state] * 3, (2, 3))
    assert codes.known == state
    assert same(codes, Group.along(1, np.array([1, 2, 3]), state, (2, 3)))


def test_a_group_without_numbers_has_no_labels_either():
    codes = by_codes(0, [1, 2], [ZERO, UNKNOWN], (2, 0))
    line = Group.along(0, np.array([1, 2]), np.array([ZERO, UNKNOWN]), (2, 0))
    for group in (codes, line, line.told(CONSTANT), line.at_least(UNKNOWN)):
        assert group.compact().size == group.states().size == group.line.size == 0


def folded_by_torch(before, axis, after):
    """The axes along which the places of an axis lie in another shape, if they lie in one run."""
    sizes = [size if at == axis else 1 for at, size in enumerate(before)]
    places = torch.arange(before[axis]).reshape(sizes).expand(before).reshape(after)
    varying = [at for at in range(len(after)) if (places != places.narrow(at, 0, 1)).any()]
    sizes = [after[at] if at in varying else 1 for at in range(len(after))]
    if prod(sizes) != before[axis]:
        return None
    return tuple(varying) if (places == torch.arange(prod(sizes)).reshape(sizes)).all() else None


def test_where_an_axis_is_in_another_shape_is_what_torch_makes_of_it():
    shapes = {*permutations((2, 3, 4)), *permutations((1, 6, 4)), *permutations((2, 12, 1))}
    shapes |= {(24,), (8, 3), (3, 8), (2, 2, 6), (6, 2, 2), (2, 1, 3, 2, 2), (1, 24)}
    met = 0
    for before in shapes:
        for after in shapes:
            for axis in range(len(before)):
                if before[axis] > 1:
                    found = _axes_folded(before, (axis,), after)
                    assert found == folded_by_torch(before, axis, after), (before, axis, after)
                    met += found is not None
    assert met > 100


def test_several_axes_in_one_run_are_one_axis_again():
    assert _axes_folded((2, 3, 4, 5), (1, 2), (2, 12, 5)) == (1,)
    assert _axes_folded((2, 3, 4, 5), (1, 2), (2, 2, 6, 5)) == (1, 2)
    assert _axes_folded((2, 3, 4, 5), (1, 3), (2, 3, 20)) is None
    assert _axes_folded((2, 3, 4, 5), (1, 2), (6, 4, 5)) is None


def test_an_operand_that_has_one_axis_in_two_places_is_refused():
    """`bii` has no labels of its own for `i`: two groups would meet in one axis."""
    labels = Labels()
    flow = Flow(labels, [Meta((2, 3, 3), torch.float, True)], TORCH)
    groups = [Group.along(at, labels.new(3), ZERO, (2, 3, 3)) for at in (1, 2)]
    with pytest.raises(ValueError, match="axes"):
        flow.contract(Value((2, 3, 3), tuple(groups)), Value((3,)), "bii,i->b")


def test_the_classes_of_all_labels_follow_what_is_tied_and_fixed():
    labels = Labels()
    fresh = labels.new(4)
    assert labels.classes()[0].tolist() == [0, 1, 2, 3, 4]
    labels.tie(fresh[2:], fresh[1:3])
    roots, stays = labels.classes()
    assert roots.tolist() == [0, 1, 2, 2, 2]
    assert stays.tolist() == [True, False, False, False, False]
    labels.fix(fresh[3:])
    labels.new(1)
    roots, stays = labels.classes()
    assert roots.tolist() == [0, 1, 2, 2, 2, 5]
    assert stays.tolist() == [True, False, True, True, True, False]

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_speedup.engine.clusters import states_of
from prune_speedup.engine.labels import FIXED, Labels
from prune_speedup.engine.values import UNKNOWN, ZERO, Group, Value, encode


def test_labels_begin_apart():
    labels = Labels()
    fresh = labels.new(4)
    assert fresh.tolist() == [1, 2, 3, 4]
    assert labels.find(fresh).tolist() == [1, 2, 3, 4]
    assert not labels.is_fixed(fresh).any()


def test_a_tie_reaches_through_a_chain():
    labels = Labels()
    fresh = labels.new(4)
    labels.tie(fresh[:-1], fresh[1:])
    assert len(set(labels.find(fresh).tolist())) == 1


def test_a_tie_to_what_is_fixed_fixes_the_class_and_keeps_it_apart():
    labels = Labels()
    first, second, third = labels.new(3)
    labels.tie(np.array([first]), np.array([FIXED]), "because")
    labels.tie(np.array([first]), np.array([second]))
    assert labels.is_fixed(np.array([first, second, third])).tolist() == [True, True, False]
    assert labels.reason(int(second)) == "because"
    assert FIXED not in labels.find(np.array([first, second]))


@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=60),
    st.sets(st.integers(0, 19)),
)
def test_ties_are_the_connected_components(edges, fixed):
    labels = Labels()
    fresh = labels.new(20)
    for left, right in edges[: len(edges) // 2]:
        labels.tie(fresh[[left]], fresh[[right]])
    labels.fix(fresh[sorted(fixed)])
    if rest := edges[len(edges) // 2 :]:
        left, right = (fresh[list(side)] for side in zip(*rest, strict=True))
        labels.tie(left, right)
    component = list(range(20))
    for _ in range(20):
        for left, right in edges:
            component[left] = component[right] = min(component[left], component[right])
    found = labels.find(fresh)
    for left in range(20):
        for right in range(20):
            assert (found[left] == found[right]) == (component[left] == component[right])
        expected = any(component[left] == component[index] for index in fixed)
        assert labels.is_fixed(fresh)[left] == expected


@pytest.mark.parametrize("count", [1, 2, 5, 6, 12])
def test_what_is_known_of_a_result_is_asked_once_for_each_combination_of_its_operands(count):
    """A dozen operands are looked at a few at a time, and come to what each place says alone."""
    states = np.random.default_rng(count).integers(ZERO, UNKNOWN + 1, size=(count, 7))
    states[:, 3] = states[:, 0]
    members = []
    for known in states:
        value = Value((7,), (Group(encode(np.arange(1, 8), known)),))
        members.append((value, list(value.groups)))
    asked = []

    def combine(operands):
        asked.append(tuple(operands))
        return max(operands)

    found = np.broadcast_to(states_of(members, combine), 7)
    assert found.tolist() == states.max(axis=0).tolist()
    assert sorted(asked) == sorted({tuple(column) for column in states.T.tolist()})

"""Choosing the k smallest of many tensors: by hand, then against a sort."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_core.errors import ConfigError
from prune_toolkit.allocate import selection
from prune_toolkit.allocate.selection import smallest

INF = float("inf")
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# Every neighbourhood where bit patterns and values could disagree, for every type.
AWKWARD = [0.0, -0.0, 1.0, -1.0, INF, -INF, 1e-40, -1e-40, 5e-324, 6e-8, 3e38, 1e300, 0.1, -0.1]


def by_sorting(scores, k, among=None, transform=lambda t: t):
    row = torch.cat([transform(t).reshape(-1) for t in scores])
    allowed = (
        torch.ones(len(row), dtype=torch.bool)
        if among is None
        else torch.cat([a.reshape(-1) for a in among])
    )
    candidates = allowed.nonzero().view(-1)
    chosen = candidates[row[candidates].sort(stable=True).indices[:k]]
    marks = torch.zeros(len(row), dtype=torch.bool).index_fill_(0, chosen, True)
    parts = marks.split([t.numel() for t in scores])
    return [part.view(t.shape) for part, t in zip(parts, scores, strict=True)]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64])
def test_the_default_device_has_no_part_in_it(dtype):
    scores = [torch.tensor([3, -1, 2], dtype=dtype), torch.tensor([[0], [9]], dtype=dtype)]
    with torch.device("meta"):  # which has no numbers, so that nothing can be found there
        marks = smallest(scores, 3, transform=torch.abs)
    assert [m.tolist() for m in marks] == [[False, True, True], [[True], [False]]]


def test_a_row_of_two_tensors():
    a, b = smallest([torch.tensor([3.0, -1.0, 2.0]), torch.tensor([[0.0], [9.0]])], 3)
    assert a.tolist() == [False, True, True]
    assert b.tolist() == [[True], [False]]


def test_names_come_back():
    marks = smallest({"a": torch.tensor([5.0]), "b": torch.tensor([4.0])}, 1)
    assert {name: mark.item() for name, mark in marks.items()} == {"a": False, "b": True}


def test_ties_go_to_the_first():
    a, b = smallest([torch.tensor([0.0, -0.0, 1.0]), torch.tensor([0.0, 0.0])], 3)
    assert a.tolist() == [True, True, False]
    assert b.tolist() == [True, False]


def test_only_some_take_part():
    [mark] = smallest(
        [torch.tensor([1.0, 2.0, 3.0, float("nan")])],
        1,
        among=[torch.tensor([False, True, True, False])],
    )
    assert mark.tolist() == [False, True, False, False]


def test_a_transform_is_applied_first():
    [mark] = smallest([torch.tensor([-3.0, 1.0, -2.0])], 2, transform=torch.abs)
    assert mark.tolist() == [False, True, True]


@pytest.mark.parametrize("k", [0, 4])
def test_none_and_all(k):
    marks = smallest([torch.randn(2, 1), torch.randn(2), torch.empty(0, 3)], k)
    assert [m.shape for m in marks] == [(2, 1), (2,), (0, 3)]
    assert sum(int(m.sum()) for m in marks) == k


def test_nothing_to_choose_from():
    assert smallest([], 0) == []
    assert smallest({}, 0) == {}


def test_types_are_compared_in_their_common_type():
    a, b, c = smallest(
        [
            torch.tensor([1.0, 2.0], dtype=torch.float16),
            torch.tensor([1.5], dtype=torch.bfloat16),
            torch.tensor([1, 3]),
        ],
        3,
    )
    assert [a.tolist(), b.tolist(), c.tolist()] == [[True, False], [True], [True, False]]


def test_parameters_are_only_read():
    weight = torch.nn.Parameter(torch.randn(4))
    [mark] = smallest([weight], 2, transform=torch.abs)
    assert not mark.requires_grad
    assert weight.grad_fn is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smallest([torch.ones(2)], 3), "3 smallest of 2 scores; k must be from 0 to 2"),
        (lambda: smallest([torch.ones(2)], -1), "-1 smallest"),
        (lambda: smallest([torch.ones(2), torch.tensor([float("nan")])], 1), r"scores\[1\].*NaN"),
        (lambda: smallest({"fc": torch.tensor([-float("nan")])}, 0), "fc contains NaN"),
        (lambda: smallest([torch.ones(1, dtype=torch.complex64)], 1), "complex.*torch.abs"),
        (lambda: smallest([torch.ones(2)], 1, among=[torch.ones(1) > 0]), "shape"),
        (lambda: smallest({"a": torch.ones(2)}, 1, among={"b": None}), "does not have"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@st.composite
def problems(draw):
    dtype = draw(st.sampled_from([*FLOATS, torch.int64]))
    value = (
        st.integers(-(2**62), 2**62) | st.integers(-2, 2)
        if dtype == torch.int64
        else st.sampled_from(AWKWARD) | st.floats(allow_nan=False)
    )
    rows = draw(st.lists(st.lists(value, max_size=12), min_size=1, max_size=4))
    scores = [torch.tensor(row, dtype=dtype) for row in rows]
    among = [
        torch.tensor(draw(st.lists(st.booleans(), min_size=len(r), max_size=len(r))), dtype=bool)
        for r in rows
    ]
    k = draw(st.integers(0, sum(int(a.sum()) for a in among)))
    return scores, among, k


@settings(deadline=None)
@given(problems())
def test_it_is_what_a_stable_sort_gives(problem):
    scores, among, k = problem
    assert equal(smallest(scores, k, among=among), by_sorting(scores, k, among))
    assert equal(
        smallest(scores, k, transform=torch.abs), by_sorting(scores, k, transform=torch.abs)
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), piece=st.sampled_from([1, 3, 7, 64]), part=st.floats(0, 1))
def test_pieces_and_views_do_not_matter(seed, piece, part):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(-5, 5, (4, 6, 5), generator=generator).float()
    scores = [base.transpose(0, 2), base[::2, 1:], base[0, 0].expand(3, 5), base]
    k = int(part * sum(t.numel() for t in scores))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_PIECE", piece)
        assert equal(smallest(scores, k), by_sorting(scores, k))

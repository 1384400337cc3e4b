"""Values with cut axes, and what the checker derives of them held to torch's own operators."""

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from prune_verify.checker import Checker, Rejected
from prune_verify.known import derived

torch = pytest.importorskip("torch")
F = torch.nn.functional
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)
sizes = st.integers(1, 4)


@st.composite
def part(draw, size):
    """Some of the indices of an axis, not none."""
    return sorted(draw(st.sets(st.integers(0, size - 1), min_size=1)))


@st.composite
def value(draw, shape, kept=None, constants=False):
    """A value with cut axes, and numbers that it may have: what is known holds of them."""
    kept = dict(kept or {})
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    numbers = generator.standard_normal(shape)
    known = np.full(shape, np.nan)
    for axis, indices in kept.items():
        gone = np.setdiff1d(np.arange(shape[axis]), indices)
        if draw(st.integers(0, 3)):
            place = (slice(None),) * axis + (gone,)
            number = draw(st.sampled_from([0.0, 0.0, 0.75, -1.5])) if constants else 0.0
            numbers[place] = known[place] = number
    return derived(shape, proper(kept, shape), known), torch.from_numpy(numbers)


def proper(kept, shape):
    return {a: np.asarray(each) for a, each in kept.items() if len(each) != shape[a]}


def small(one, numbers):
    """The numbers that are kept."""
    for axis, indices in one.kept.items():
        numbers = numbers.index_select(axis, torch.from_numpy(indices))
    return numbers


def follows(step, values, claimed, sets=()):
    """What the checker derives, or None where it refuses."""
    checker = Checker({}, {}, [np.asarray(each) for each in sets])
    checker.values = dict(enumerate(values))
    try:
        return checker.derive({"in": list(range(len(values))), **step}, claimed)[0]
    except Rejected:
        return None


def holds(made, there, here):
    """The small result is the kept part of the original's, and what is known is so."""
    assert made.shape == tuple(there.shape)
    torch.testing.assert_close(small(made, there), here, atol=1e-9, rtol=1e-9, equal_nan=True)
    known = torch.from_numpy(np.broadcast_to(made.known, made.shape).astype(float))
    sure = ~known.isnan()
    torch.testing.assert_close(there[sure].double(), known[sure], atol=1e-9, rtol=1e-9)
    assert (there[known == 0] == 0).all()

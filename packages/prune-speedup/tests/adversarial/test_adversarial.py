"""Models that behave otherwise away from their example: none may become silently different."""

import attributes  # noqa: F401
import calls  # noqa: F401
import copies  # noqa: F401
import hidden  # noqa: F401
import norms  # noqa: F401
import paths  # noqa: F401
import pytest
from adversaries import adversaries
from generated import adversaries_at_random
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trial import RIGHT, outcome


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("adversary", [*adversaries()], ids=lambda adversary: adversary.name)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_adversary_becomes_silently_different(adversary, seed):
    status, why = outcome(adversary, seed=seed)
    assert status in RIGHT, why


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(adversaries_at_random(), st.integers(0, 100))
def test_no_model_made_at_random_becomes_silently_different(adversary, seed):
    status, why = outcome(adversary, seed=seed)
    assert status in RIGHT, (adversary.name, why)

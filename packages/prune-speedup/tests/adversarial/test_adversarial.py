"""Models that behave otherwise away from their example: none may become silently different."""

import attributes  # noqa: F401
import calls  # noqa: F401
import copies  # noqa: F401
import hidden  # noqa: F401
import norms  # noqa: F401
import paths  # noqa: F401
import pytest
from adversaries import adversaries
from trial import RIGHT, outcome


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("adversary", [*adversaries()], ids=lambda adversary: adversary.name)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_adversary_becomes_silently_different(adversary, seed):
    status, why = outcome(adversary, seed=seed)
    assert status in RIGHT, why

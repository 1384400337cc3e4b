"""The table behind "`pip install prune-filter` brings it" says what the distributions register."""

import pytest

import prune_core
from prune_core.registry.known import KNOWN


@pytest.mark.parametrize("distribution", KNOWN)
def test_known_names_are_the_registered_ones(distribution):
    plugins = [p for p in prune_core.plugins() if p.distribution == distribution]
    if not plugins:
        pytest.skip(f"{distribution} is not installed here")
    registered = {kind: tuple(sorted(names)) for kind, names in plugins[0].provides.items()}
    assert KNOWN[distribution] == registered

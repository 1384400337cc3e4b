"""The old names of the parts, in prune_core, lead to this package."""

import sys

import pytest

import prune_core
import prune_core.tools
import prune_toolkit
from prune_core import MissingDependencyError


def test_the_door_shows_all_that_is_behind_it():
    behind = set(prune_toolkit.__all__) - {"__version__"}
    assert set(dir(prune_core.tools)) >= behind
    for name in behind - {"DependencyAwareAllocator"}:
        assert getattr(prune_core.tools, name) is getattr(prune_toolkit, name)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prune_toolkit", None)
    with pytest.raises(MissingDependencyError, match="pip install prune-toolkit"):
        prune_core.ChannelPruner  # noqa: B018 - asking for it is what fails


def test_the_bases_of_pruners_are_at_home_in_the_core_too():
    for name in ("BasicPruner", "ChannelPruner", "ComposedPruner"):
        assert getattr(prune_core, name) is getattr(prune_toolkit, name)

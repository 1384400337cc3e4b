"""`prune_core.recover` is a door to a package that may not be there."""

import sys

import pytest

import prune_core
from prune_core import MissingDependencyError


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prune_recover", None)
    monkeypatch.delitem(vars(prune_core), "recover", raising=False)
    with pytest.raises(MissingDependencyError, match="pip install prune-recover"):
        prune_core.recover  # noqa: B018 - asking for it is what fails


def test_it_is_listed():
    assert "recover" in dir(prune_core)
    assert "recover" in prune_core.__all__

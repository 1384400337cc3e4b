"""Names of the core that other packages bring: who lacks one is told what to install."""

import sys
from importlib import import_module

import pytest

import prune_core
from prune_core import MissingDependencyError, registry

BEHIND = [
    ("prune_core", "export", "prune-export"),
    ("prune_core", "recover", "prune-recover"),
    ("prune_core", "ChannelPruner", "prune-toolkit"),
    ("prune_core.tools", "SparsityAllocator", "prune-toolkit"),
    ("prune_core.functional", "l1_unstructured", "prune-filter"),
    ("prune_core.testing", "check_exporter", "prune-export"),
    ("prune_core.testing", "check_quantizer", "prune-quant"),
]
OF_THE_ENGINE = [
    ("prune_core", "shrink"),
    ("prune_core", "count_flops_params"),
    ("prune_core.speedup", "ModelSpeedup"),
    ("prune_core.utils", "count_flops_params"),
    ("prune_core.utils.counter", "count_flops_params"),
]


@pytest.mark.parametrize(("module", "name", "distribution"), BEHIND)
def test_without_the_package_it_says_what_to_install(module, name, distribution, monkeypatch):
    package = distribution.replace("-", "_")
    for loaded in [each for each in sys.modules if each.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=f"`pip install {distribution}`"):
        getattr(import_module(module), name)


@pytest.mark.parametrize(("module", "name"), OF_THE_ENGINE)
def test_without_an_engine_it_says_what_to_install(module, name, monkeypatch):
    monkeypatch.setattr(registry, "plugins", lambda: ())
    with pytest.raises(MissingDependencyError, match=f"{name} needs .*`pip install prune-speedup`"):
        getattr(import_module(module), name)


def test_tools_that_look_around_meet_no_error(monkeypatch):
    for package in ("prune_toolkit", "prune_filter.functional", "prune_recover"):
        monkeypatch.setitem(sys.modules, package, None)
    for module in ("tools", "functional", "recovery"):
        assert dir(import_module(f"prune_core.{module}")) == []
        assert not hasattr(import_module(f"prune_core.{module}"), "__wrapped__")


def test_what_is_behind_a_door_is_listed():
    assert {"recover", "shrink", "ChannelPruner"} <= set(dir(prune_core))
    assert {"check_quantizer", "check_pruner"} <= set(dir(prune_core.testing))

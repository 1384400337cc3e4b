"""What is wrong with a plugin is said once, and costs the others nothing."""

import warnings

import pytest

import prune_core
from prune_core import PluginWarning, Reference, hookimpl
from prune_core.registry import refresh, registered

ROOT = {"root": Reference("math:sqrt")}


class Sound:
    @hookimpl
    def prune_register_pruners(self):
        return ROOT


class MisspeltHook:
    @hookimpl
    def prune_register_pruner(self):
        return ROOT


class ForgottenDecorator:
    def prune_register_pruners(self):
        return ROOT


class TooManyArguments:
    @hookimpl
    def prune_register_pruners(self, models):
        return ROOT


class Raises:
    @hookimpl
    def prune_register_pruners(self):
        raise RuntimeError("the moon is in the wrong house")


class Exits:
    @hookimpl
    def prune_register_pruners(self):
        raise SystemExit(3)


class ReturnsNothing:
    @hookimpl
    def prune_register_pruners(self):
        return None


class UpperCaseName:
    @hookimpl
    def prune_register_pruners(self):
        return {"L1": ROOT["root"]}


class NoReference:
    @hookimpl
    def prune_register_pruners(self):
        return {"root": "math:sqrt"}


class UnknownKind:
    @hookimpl
    def prune_register_parts(self):
        return {"metrics": ROOT}


FAULTS = {
    MisspeltHook: r"'prune_register_pruner', which is not a hook .* mean 'prune_register_pruners'",
    ForgottenDecorator: r"its 'prune_register_pruners' lacks the decorator @prune_core\.hookimpl",
    TooManyArguments: r"prune_register_pruners.*'models'.*",
    Raises: r"raised RuntimeError: the moon is in the wrong house",
    Exits: r"raised SystemExit: 3",
    ReturnsNothing: r"its prune_register_pruners returned None where a mapping is expected",
    UpperCaseName: r"registers the name 'L1'; a name is lower-case letters",
    NoReference: r"registers 'root' as 'math:sqrt' where a prune_core\.Reference is expected",
    UnknownKind: r"the kind 'metrics'; the kinds are collector, .*Did you mean 'metric'",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_one_warning_and_the_sound_plugin_works(fault):
    with registered(fault(), "faulty"), registered(Sound(), "sound"):
        with pytest.warns(PluginWarning, match=FAULTS[fault]) as caught:
            plugins = prune_core.plugins()
        assert len(caught) == 1
        assert str(caught[0].message).startswith("Plugin faulty 0 is left out: ")
        assert prune_core.get_pruner("root")(9.0) == 3.0

    by_name = {plugin.distribution: plugin for plugin in plugins}
    assert by_name["sound"].error is None
    assert by_name["faulty"].error
    assert not by_name["faulty"].provides


def test_asking_again_does_not_warn_again():
    with registered(Raises(), "faulty"):
        with pytest.warns(PluginWarning):
            prune_core.plugins()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            prune_core.plugins()


def test_a_name_of_a_plugin_left_out_says_why():
    with registered(Raises(), "faulty"):
        with pytest.warns(PluginWarning):
            prune_core.plugins()
        with pytest.raises(prune_core.UnknownNameError, match=r"faulty is left out: .*the moon"):
            prune_core.get_pruner("faulty:root")


def test_a_plugin_left_out_hears_no_events():
    from prune_core.registry import manager

    with registered(MisspeltHook(), "faulty"), pytest.warns(PluginWarning):
        assert not manager().has_plugin("faulty:faulty")


def test_disabled_plugins_are_not_asked(monkeypatch):
    monkeypatch.setenv("PRUNE_DISABLED_PLUGINS", "Some_Plugin, ")
    with registered(Raises(), "some.plugin"):
        (plugin,) = [p for p in prune_core.plugins() if p.distribution == "some.plugin"]
        assert plugin.disabled
        assert plugin.error is None
        message = "some.plugin is switched off by PRUNE_DISABLED_PLUGINS"
        with pytest.raises(prune_core.UnknownNameError, match=message):
            prune_core.get_pruner("some-plugin:root")


def test_disabling_what_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv("PRUNE_DISABLED_PLUGINS", "soud")
    with registered(Sound(), "sound"):
        with pytest.warns(PluginWarning, match=r"names 'soud', which is not.*mean 'sound'\?"):
            prune_core.plugins()
        assert prune_core.get_pruner("root")(4.0) == 2.0


@pytest.fixture(autouse=True)
def _search_again():
    yield
    refresh()

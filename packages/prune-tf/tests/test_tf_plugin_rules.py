"""Rules that plugins register, by the dotted path of a class."""

import re
import sys

import keras
import numpy as np
import pytest
from keras import layers
from keras_plugin import Doubled

from prune_core import PluginWarning, Reference, hookimpl
from prune_core.registry import registered
from prune_tf import set_masks, shrink, units


class Plugin:
    def __init__(self, name, target="keras_plugin:passes_on", framework="keras"):
        self.rules = {name: Reference(target, framework=framework)}

    @hookimpl
    def prune_register_rules(self):
        return self.rules


@pytest.fixture
def model():
    x = layers.Input((6,))
    y = Doubled(name="own")(layers.Dense(8, name="first")(x))
    return keras.Model(x, layers.Dense(3, name="head")(y))


def test_it_speaks_for_the_class(model):
    assert units(model).unknown == {"Doubled": "own"}
    with registered(Plugin("keras_plugin.Doubled"), "acme"):
        assert not units(model).unknown
        kept = np.arange(8) % 2 == 1
        set_masks(model, {"first": {"kernel": np.tile(kept, (6, 1)), "bias": kept}})
        report = shrink(model)
    assert report.model.get_layer("first").units == 4
    assert units(model).unknown == {"Doubled": "own"}


def test_one_that_fails_is_named_with_its_place(model):
    with registered(Plugin("keras_plugin.Doubled", "keras_plugin:breaks_off"), "acme"):
        found = units(model)
    (why,) = found.labelling.flow.unruled.values()
    place = r"keras_plugin\.py:\d+\)"
    says = rf"the rule keras_plugin\.breaks_off of Doubled failed: TypeError: .*{place}"
    assert re.fullmatch(says, why)
    assert found.unknown == {"Doubled": "own"}


def test_another_path_to_the_same_class_is_as_good(model, monkeypatch):
    public = type(sys)("acme_public")
    public.Doubled = Doubled
    monkeypatch.setitem(sys.modules, "acme_public", public)
    with registered(Plugin("acme_public.Doubled"), "acme"):
        assert not units(model).unknown


@pytest.mark.parametrize(
    "plugin",
    [
        Plugin("acme.Doubled"),
        Plugin("keras_plugin.Other"),
        Plugin("keras_plugin.Doubled", framework="torch"),
    ],
    ids=["another module", "another class", "another framework"],
)
def test_it_speaks_for_no_other(model, plugin):
    with registered(plugin, "acme"):
        assert units(model).unknown == {"Doubled": "own"}


def test_what_cannot_be_imported_is_said(model):
    cannot = pytest.warns(PluginWarning, match="cannot be imported.*'gone'")
    with registered(Plugin("keras_plugin.Doubled", "keras_plugin:gone"), "acme"), cannot:
        assert units(model).unknown == {"Doubled": "own"}

"""AMC's agent is an extra; what it does is tested where that is installed, in tests/frameworks."""

import sys

import keras
import pytest
from keras import layers

import prune_core
from prune_core import MissingDependencyError


def test_the_agent_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    pruner = prune_core.get_pruner("amc", framework="keras")
    model = keras.Sequential([layers.Input((4,)), layers.Dense(8), layers.Dense(2)])
    with pytest.raises(MissingDependencyError, match=r"pip install 'prune-tf\[amc\]'"):
        pruner(model, [{"op_types": ["Dense"]}], lambda model: 1.0)

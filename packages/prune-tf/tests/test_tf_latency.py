"""Budgets of measured latency."""

import keras
import numpy as np
import pytest
from keras import layers

import prune_tf
from prune_core import ConfigError
from prune_tf.latency import relative_latency


def wide(units):
    x = layers.Input((256,))
    y = layers.Dense(units, activation="relu", name="a")(x)
    y = layers.Dense(units, activation="relu", name="b")(y)
    return keras.Model(x, layers.Dense(2, name="out")(y))


def test_the_least_sparsity_that_meets_it_is_found(monkeypatch):
    """With a clock that counts parameters; how often it was asked is what a search costs."""
    asked = []

    def counted(small, large, inputs):
        asked.append(small.count_params() / large.count_params())
        assert large.predict_on_batch(inputs).shape == small.predict_on_batch(inputs).shape
        return asked[-1]

    monkeypatch.setattr("prune_tf.budget.relative_latency", counted)
    model = wide(32)
    model, _ = prune_tf.prune(model, target={"latency": 0.5}, exclude="out")
    left = prune_tf.shrink(model).parameters
    assert 0.45 <= left[1] / left[0] <= 0.5
    assert len(asked) <= 8


def test_together_with_another_budget(monkeypatch):
    monkeypatch.setattr("prune_tf.budget.relative_latency", lambda small, large, inputs: 0.1)
    model, _ = prune_tf.prune(
        wide(32),
        target={"latency": 0.5, "flops": 0.5},
        exclude="out",
        example_inputs=np.ones((3, 256)),
    )
    report = prune_tf.shrink(model)
    assert 0.45 <= report.flops[1] / report.flops[0] <= 0.5


def test_one_that_cannot_be_met_is_refused_and_the_model_left_alone(monkeypatch):
    monkeypatch.setattr("prune_tf.budget.relative_latency", lambda small, large, inputs: 0.9)
    model = wide(8)
    before = [np.array(each) for each in model.get_weights()]
    with pytest.raises(
        ConfigError, match=r"target\['latency'\] is 0.5, and with 99% .* 0.900 is left"
    ):
        prune_tf.prune(model, target={"latency": 0.5}, exclude="out")
    assert not prune_tf.masks_of(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_of_a_hundredth_takes_less_time():
    inputs = np.ones((64, 256), "float32")
    large = wide(3000)
    assert relative_latency(wide(30), large, inputs) < 0.8
    assert relative_latency(large, large, inputs) == 1.0

"""Wanda by hand: weights times the lengths of their inputs, compared within each output."""

import keras
import numpy as np
import pytest
from keras import layers

import prune_core
from prune_core import ConfigError, PruneError
from prune_tf import WandaPruner

HALF = [{"sparsity": 0.5, "op_names": ["fc"]}]


@pytest.fixture
def model():
    net = keras.Sequential(
        [layers.Input((4,)), layers.Dense(2, name="fc"), layers.Dense(1, name="head")]
    )
    net.get_layer("fc").kernel.assign([[1.0, 8.0], [2.0, 7.0], [3.0, 6.0], [4.0, 5.0]])
    return net


# Lengths 3, 0.1, 2 and 1: of the first output, 3 and 6 stay, of the second 24 and 12.
DATA = np.array([[3.0, 0.1, 0.0, 1.0], [0.0, 0.0, 2.0, 0.0]], "float32")


def test_within_each_output(model):
    _, masks = WandaPruner(model, HALF, data=DATA).compress()
    assert masks["fc"]["kernel"].T.tolist() == [
        [False, False, True, True],
        [True, False, True, False],
    ]


def test_within_the_layer(model):
    """3, 0.2, 6, 4 and 24, 0.7, 12, 5."""
    _, masks = WandaPruner(model, HALF, data=DATA, mode="normal").compress()
    assert masks["fc"]["kernel"].T.tolist() == [
        [False, False, True, False],
        [True, False, True, True],
    ]


def test_batches_add_up_and_a_function_may_run_the_model(model):
    expected = WandaPruner(model, HALF, data=DATA).scores()["fc"]
    apart = WandaPruner(model, HALF, data=[DATA[:1], DATA[1:]]).scores()["fc"]
    called = WandaPruner(model, HALF, calibrate=lambda net: net(DATA)).scores()["fc"]
    np.testing.assert_allclose(apart, expected, rtol=1e-6)
    np.testing.assert_allclose(called, expected, rtol=1e-6)
    np.testing.assert_allclose(expected, [[3, 0.2, 6, 4], [24, 0.7, 12, 5]], rtol=1e-5)


def test_sequences_are_rows():
    net = keras.Sequential([layers.Input((2, 4)), layers.Dense(2, name="fc")])
    scores = WandaPruner(net, HALF, data=DATA[None]).scores()["fc"]
    lengths = np.linalg.norm(DATA, axis=0)
    expected = np.abs(np.array(net.get_layer("fc").kernel)).T * lengths
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_masks_grow_and_stay(model, zeros_hold):
    first = WandaPruner(model, [{"sparsity": 0.25, "op_names": ["fc"]}], data=DATA).compress()[1]
    second = WandaPruner(model, HALF, data=DATA).compress()[1]
    assert not (second["fc"]["kernel"] & ~first["fc"]["kernel"]).any()
    zeros_hold(model)


def test_it_is_registered_and_torchs_comes_first():
    assert prune_core.get_pruner("wanda", framework="keras") is WandaPruner


def test_mistakes_are_named(model):
    with pytest.raises(ConfigError, match="needs 'data'"):
        WandaPruner(model, HALF)
    with pytest.raises(ConfigError, match="the modes of WandaPruner are 'row', 'normal'"):
        WandaPruner(model, HALF, data=DATA, mode="global")
    with pytest.raises(PruneError, match="no batch in it"):
        WandaPruner(model, HALF, data=[]).compress()

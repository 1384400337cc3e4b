"""Recurrent layers lose units: a column of each gate, and a row of what is fed back."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import prune_tf
from prune_core import ConfigError
from prune_tf import FPGMPruner, shrink

KINDS = {layers.SimpleRNN: 1, layers.GRU: 3, layers.LSTM: 4}


def model_of(*hidden, inputs=3):
    model = keras.Sequential([layers.Input((5, inputs)), *hidden, layers.Dense(2, name="head")])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=tuple(weight.shape)) * 0.4)
    return model


def outputs(model):
    x = np.random.default_rng(1).normal(size=(4, *model.input_shape[1:])).astype("float32")
    return ops.convert_to_numpy(model(x))


def halved(model, tmp_path, **how):
    prune_tf.prune(model, "l1", sparsity=0.5, exclude="head", **how)
    masked, small = outputs(model), shrink(model).model
    np.testing.assert_allclose(outputs(small), masked, rtol=1e-5, atol=1e-6)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(small))
    return small


@pytest.mark.parametrize("kind", KINDS)
def test_units_go_where_their_columns_are_smallest(kind, tmp_path):
    model, gates = model_of(kind(4, name="rnn")), KINDS[kind]
    cell = model.get_layer("rnn").cell
    strong = np.array([0.1, 1.0, 1.0, 0.1])
    cell.kernel.assign(np.tile(strong, (3, gates)))
    cell.recurrent_kernel.assign(np.full((4, 4 * gates), 0.3))
    masks = prune_tf.prune(model, "l1", sparsity=0.5, exclude="head")[1]
    np.testing.assert_array_equal(
        masks[f"rnn/{cell.name}"]["kernel"], np.tile(strong == 1, (3, gates))
    )
    masked, small = outputs(model), shrink(model).model
    np.testing.assert_allclose(outputs(small), masked, rtol=1e-5, atol=1e-6)
    rnn = small.get_layer("rnn")
    assert (rnn.units, rnn.cell.kernel.shape) == (2, (3, 2 * gates))
    assert rnn.cell.recurrent_kernel.shape == (2, 2 * gates)
    assert small.get_layer("head").kernel.shape == (2, 2)


@pytest.mark.parametrize("targets", ["LSTM", "LSTMCell", "second", "second/lstm_cell"])
def test_a_recurrent_layer_goes_by_its_own_name_and_by_its_cells(targets, tmp_path):
    first = layers.LSTM(6, return_sequences=True, name="first")
    model = model_of(first, layers.LSTM(4, name="second"))
    small = halved(model, tmp_path, targets=targets)
    assert small.get_layer("first").units == (3 if targets.startswith("LSTM") else 6)
    assert small.get_layer("second").units == 2


def test_both_directions_lose_units_of_their_own(tmp_path):
    both = layers.Bidirectional(layers.GRU(4, name="gru"), name="both")
    small = halved(model_of(both), tmp_path)
    assert [small.get_layer("both").forward_layer.units] == [2]
    assert small.get_layer("head").kernel.shape == (4, 2)


def test_other_scores_of_weights_choose_units_too():
    model = model_of(layers.GRU(4, name="rnn"))
    rules = [{"sparsity": 0.5, "op_types": ["GRUCell"]}]
    FPGMPruner(model, rules, mode="dependency_aware").compress()
    masked, small = outputs(model), shrink(model).model
    np.testing.assert_allclose(outputs(small), masked, rtol=1e-5, atol=1e-6)
    assert small.get_layer("rnn").units == 2


def test_a_recurrent_layer_that_the_model_returns_stays():
    x = layers.Input((5, 3))
    model = keras.Model(x, layers.LSTM(4, name="rnn")(x))
    with pytest.raises(ConfigError, match="the model returns it"):
        prune_tf.prune(model, "l1", sparsity=0.5, targets="LSTM")

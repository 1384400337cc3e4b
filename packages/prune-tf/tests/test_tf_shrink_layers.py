"""Layers one by one: what each keeps, and users' own that look like others."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_networks import HALF, assert_equal, conv_norm, ended, image, realistic

from prune_core import PruneWarning
from prune_tf import (
    L1NormPruner,
    LevelPruner,
    masks_of,
    shrink,
)
from prune_tf.layers import layers_of


def test_a_norm_over_channels_keeps_what_it_runs_over():
    x = image()
    y = layers.LayerNormalization(name="norm")(conv_norm(conv_norm(x, 8), 8))
    model = realistic(ended(x, conv_norm(y, 8)))
    L1NormPruner(model, HALF).compress()
    report = shrink(model)
    assert report.unknown == {}
    assert_equal(model, report.model)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.EinsumDense("abc,cd->abd", output_shape=(5, 8), bias_axes="d", name="odd"),
        lambda: layers.LSTM(8, return_sequences=True, name="odd"),
        lambda: layers.GRU(8, return_sequences=True, name="odd"),
        lambda: layers.Bidirectional(layers.SimpleRNN(4, return_sequences=True), name="odd"),
        lambda: layers.GroupNormalization(2, name="odd"),
    ],
)
def test_layers_of_many_kinds_keep_what_is_left_of_their_masks(make, zeros_hold):
    x = layers.Input((5, 4))
    y = layers.Dense(8, activation="relu", name="first")(x)
    y = layers.Dense(8, name="second")(y)
    y = layers.Dense(6, name="third")(make()(y))
    model = keras.Model(x, layers.Dense(3, name="out")(layers.Flatten()(y)))
    prunable = [t for t in ("EinsumDense", "LSTMCell", "GRUCell") if t in types_in(model)]
    if prunable:
        LevelPruner(model, [{"sparsity": 0.5, "op_types": prunable}]).compress()
    L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["first", "second", "third"]}]).compress()
    report = shrink(model)
    widths = [report.model.get_layer(name).units for name in ("first", "second", "third")]
    assert (widths[0], widths[2]) == (4, 3)
    assert set(report.unknown.values()) <= {"Bidirectional"}
    assert_equal(model, report.model)
    if masks_of(report.model):
        zeros_hold(report.model)


def types_in(model):
    return {type(named.layer).__name__ for named in layers_of(model)}


def test_attention_loses_what_its_query_loses():
    x = layers.Input((5, 4))
    y = layers.Dense(8, name="first")(layers.Dense(6, activation="relu", name="hidden")(x))
    y = layers.MultiHeadAttention(2, 4, name="odd")(y, y)
    model = keras.Model(x, layers.Dense(3, name="out")(layers.Flatten()(y)))
    L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["first", "hidden"]}]).compress()
    report = shrink(model)
    assert report.unknown == {}
    assert (report.model.get_layer("hidden").units, report.model.get_layer("first").units) == (3, 4)
    assert_equal(model, report.model)


def test_a_users_class_of_a_known_name_is_not_mistaken():
    class ReLU(layers.Layer):
        def call(self, x):
            return ops.roll(x, 1, axis=-1)

    x = image()
    model = realistic(ended(x, conv_norm(ReLU(name="odd")(conv_norm(conv_norm(x, 8), 8)), 8)))
    L1NormPruner(model, HALF).compress()
    report = shrink(model)
    assert report.unknown == {}  # its call() is followed, and rolls channels
    assert_equal(model, report.model)


def test_a_users_function_of_a_known_name_is_not_mistaken():
    @keras.saving.register_keras_serializable()
    def relu(x):
        return x - ops.mean(x, axis=-1, keepdims=True)

    x = layers.Input((6,))
    y = layers.Dense(8, activation=relu, name="first")(layers.Dense(8, name="before")(x))
    model = keras.Model(x, layers.Dense(3, name="out")(y))
    L1NormPruner(model, HALF).compress()
    report = shrink(model)
    assert report.model.get_layer("before").units == 4
    assert report.model.get_layer("first").units == 8
    assert_equal(model, report.model)


def test_a_lambda_keeps_its_function():
    factor = ops.convert_to_tensor(np.float32(3.0))
    x = layers.Input((6,))
    y = layers.Lambda(lambda y: ops.roll(y, 1, axis=-1) * factor, name="odd")(
        layers.Dense(8, name="first")(x)
    )
    y = layers.Dense(6, activation="relu", name="second")(y)
    model = keras.Model(x, layers.Dense(3, name="out")(y))
    L1NormPruner(model, HALF).compress()
    masks = masks_of(model)
    report = shrink(model)
    assert report.unknown == {}
    assert report.model.get_layer("second").units == 3
    assert_equal(model, report.model)
    assert shrink(model, masks=masks).parameters == report.parameters


def test_samples_that_become_something_else_hold_what_is_in_them():
    reshape = (-1, 4)
    x = layers.Input((4, 6))
    y = layers.Dense(6, activation="relu", name="first")(x)
    y = layers.Dense(8, activation="relu", name="second")(y)
    y = ops.reshape(layers.Dense(4)(ops.reshape(y, reshape)), (-1, 4 * 8 // reshape[1], 4))
    model = keras.Model(x, layers.Dense(3, name="out")(layers.Flatten()(y)))
    L1NormPruner(model, HALF).compress()
    report = shrink(model)
    assert report.model.get_layer("first").units == 3
    assert report.model.get_layer("second").units == 8
    assert set(report.unknown.values()) == {"Reshape"}
    assert_equal(model, report.model)


def test_a_number_for_each_sample_can_be_an_input():
    x = layers.Input(())
    y = layers.Concatenate()([layers.Flatten()(x), layers.Reshape((1,))(x)])
    model = keras.Model(x, layers.Dense(3, name="out")(layers.Dense(8, name="first")(y)))
    L1NormPruner(model, HALF).compress()
    report = shrink(model)
    assert report.model.get_layer("first").units == 4
    assert_equal(model, report.model)


def test_a_layer_that_computes_with_more_than_its_kernel_keeps_what_is_around_it():
    x = layers.Input((6,))
    y = layers.Dense(8, activation="relu", name="first")(x)
    y = layers.Dense(8, activation="relu", name="second")(y)
    adapted = layers.Dense(8, activation="relu", name="adapted")
    model = keras.Model(x, layers.Dense(3, name="out")(adapted(y)))
    adapted.enable_lora(2)
    adapted.lora_kernel_b.assign(np.tile([1.0, -1.0], (2, 4)))  # so that not all of it is negative
    L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["first", "second"]}]).compress()
    report = shrink(model)
    assert report.unknown == {"adapted": "Dense"}
    assert report.model.get_layer("first").units == 4
    assert report.model.get_layer("second").units == 8
    assert_equal(model, report.model)


def test_a_layer_that_its_config_does_not_make_is_copied_all_the_same():
    class Odd(layers.Layer):
        def __init__(self):
            super().__init__(name="odd")

        def call(self, x):
            return x + 1

    x = layers.Input((6,))
    y = Odd()(layers.Dense(8, name="first")(layers.Dense(8)(x)))
    model = keras.Model(x, layers.Dense(3, name="out")(y))
    L1NormPruner(model, HALF).compress()
    with pytest.warns(PruneWarning, match="'odd' was copied part by part"):
        report = shrink(model)
    assert report.model.get_layer("first").units == 4
    assert report.model.get_layer("odd") is not model.get_layer("odd")
    assert_equal(model, report.model)

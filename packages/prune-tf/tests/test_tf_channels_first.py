"""Channels in front of space: followed as they are behind it."""

import keras
import numpy as np
import pytest
from keras import layers

import prune_tf
from prune_tf import masks_of, shrink, units

FIRST = {"data_format": "channels_first"}


def network(where="channels_first"):
    """Convolutions of each kind, a sum, norms, pooling, padding, up to a dense head."""
    first = where == "channels_first"
    lies = {"data_format": where}
    x = layers.Input((3, 12, 12) if first else (12, 12, 3))
    y = layers.ZeroPadding2D(1, **lies)(x)
    start = layers.Conv2D(8, 3, name="start", **lies)(y)
    start = layers.ReLU()(layers.BatchNormalization(axis=1 if first else -1, name="norm")(start))
    y = layers.Conv2D(12, 1, name="up", activation="relu", **lies)(start)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise", **lies)(y)
    y = layers.Conv2D(8, 1, name="down", **lies)(y)
    y = layers.MaxPooling2D(2, **lies)(layers.Add()([start, y]))
    y = layers.Conv2DTranspose(6, 2, strides=2, name="larger", **lies)(y)
    y = layers.SeparableConv2D(8, 3, name="separable", **lies)(y)
    y = layers.Conv2D(8, 3, groups=2, name="grouped", **lies)(y)
    y = layers.GlobalAveragePooling2D(**lies)(layers.UpSampling2D(2, **lies)(y))
    return keras.Model(x, layers.Dense(3, name="out")(y), name="first")


def test_units_are_those_of_channels_last():
    found = units(network())
    assert not found.unknown
    last = {group.name: len(group) for group in units(network("channels_last")).groups}
    assert {group.name: len(group) for group in found.groups} == last
    assert last.keys() >= {"start/kernel[3]", "up/kernel[3]", "larger/kernel[2]"}


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="TensorFlow convolves so on a GPU only"
)
def test_the_small_model_computes_what_the_masked_one_does():
    model = network()
    rng = np.random.default_rng(0)
    for variable in model.get_layer("norm").weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    prune_tf.prune(model, "l1", sparsity=0.5)
    report = shrink(model)
    assert report.difference < 1e-5
    assert report.parameters[1] < 0.5 * report.parameters[0]
    small = report.model
    assert [small.get_layer(name).filters for name in ("start", "up", "larger")] == [4, 6, 3]
    assert masks_of(small) == {} or all(
        mask.all() for masks in masks_of(small).values() for mask in masks.values()
    )


def test_what_lies_along_space_stays():
    """A dense layer over the width, whose outputs a convolution then runs along."""
    x = layers.Input((3, 8, 8))
    y = layers.Dense(10, name="width")(x)
    y = layers.GlobalMaxPooling2D(**FIRST)(layers.Conv2D(4, 3, name="conv", **FIRST)(y))
    found = units(keras.Model(x, layers.Dense(2, name="out")(y)))
    assert [group.name for group in found.groups] == ["conv/kernel[3]"]
    assert "it works along them (Conv2D in conv)" in found.why_fixed("width/kernel", 1)


def flattened(where):
    """A slope for each place, a norm of groups, and a dense layer that reads every place."""
    first = where == "channels_first"
    x = layers.Input((8, 6, 5) if first else (6, 5, 8))
    y = layers.SpatialDropout2D(0.1, data_format=where)(x)
    y = layers.DepthwiseConv2D(1, depth_multiplier=2, name="wide", data_format=where)(y)
    y = layers.Conv2D(12, 1, name="conv", data_format=where)(y)
    y = layers.PReLU(name="slopes")(y)
    y = layers.GroupNormalization(6, axis=1 if first else -1, name="groups")(y)
    y = layers.Flatten(data_format=where)(y)
    return keras.Model(x, layers.Dense(3, name="out")(y))


def test_flattening_slopes_and_groups_are_followed():
    found = units(flattened("channels_first"))
    assert not found.unknown
    [group] = [group for group in found.groups if group.name == "conv/kernel[3]"]
    assert len(group) == 6
    assert group.axes[-4:] == (
        ("slopes/alpha", 0),
        ("groups/gamma", 0),
        ("groups/beta", 0),
        ("out/kernel", 0),
    )
    unit = found.unit(group.labels[1])
    last = units(flattened("channels_last"))
    [same] = [group for group in last.groups if group.name == "conv/kernel[3]"]
    # Keras flattens both alike: place by place, and channels last.
    assert unit.slices["out/kernel"] == last.unit(same.labels[1]).slices["out/kernel"]
    assert unit.slices["out/kernel"][0][:3] == (2, 3, 14)


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="TensorFlow convolves so on a GPU only"
)
def test_flattened_channels_go():
    model = flattened("channels_first")
    prune_tf.prune(model, "l1", sparsity=0.5, targets=["conv"])
    report = shrink(model)
    small = report.model
    assert (small.get_layer("conv").filters, small.get_layer("groups").groups) == (6, 3)
    assert small.get_layer("slopes").alpha.shape == (6, 6, 5)
    assert small.get_layer("out").kernel.shape == (6 * 30, 3)
    assert report.difference < 1e-5

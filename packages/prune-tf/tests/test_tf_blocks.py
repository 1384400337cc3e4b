"""Layers made of other layers, written as people write them and not as Keras would like them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from prune_core import PruneWarning
from prune_tf import L1NormPruner, prune, shrink
from prune_tf.pruning.coupled import Coupling

# The width of a transformer stays, because its norms run over it.
pytestmark = pytest.mark.filterwarnings("ignore:.*selected layers keep all channels")


@keras.saving.register_keras_serializable("blocks")
class Attention(layers.Layer):
    """Heads of dense layers; returns a cache that is not there, and no shape of its output."""

    def __init__(self, heads=4, size=3, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.size = heads, size
        self.query, self.key, self.value = (
            layers.Dense(heads * size, name=name) for name in ("query", "key", "value")
        )

    def build(self, shape):
        self.width = shape[-1]
        self.out = layers.Dense(self.width, name="out")
        for each in (self.query, self.key, self.value):
            each.build(shape)
        self.out.build((*shape[:-1], self.heads * self.size))

    def split(self, x):
        batch, length = ops.shape(x)[:2]
        x = ops.reshape(x, (batch, length, self.heads, self.size))
        return ops.transpose(x, (0, 2, 1, 3))

    def call(self, x, cache=None):
        query, key, value = (self.split(each(x)) for each in (self.query, self.key, self.value))
        key = ops.reshape(ops.stack([key], axis=2), ops.shape(key))
        shares = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / self.size)
        x = ops.transpose(ops.matmul(shares, value), (0, 2, 1, 3))
        batch, length = ops.shape(x)[:2]
        return self.out(ops.reshape(x, (batch, length, self.heads * self.size))), cache

    def get_config(self):
        return super().get_config() | {"heads": self.heads, "size": self.size}


@keras.saving.register_keras_serializable("blocks")
class Block(layers.Layer):
    """Attention and a feed-forward part."""

    kind = Attention

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = self.kind(name="attention")
        self.norm = layers.LayerNormalization(name="norm")
        self.up = layers.Dense(16, activation="gelu", name="up")
        self.down = layers.Dense(8, name="down")

    def build(self, shape):
        self.attention.build(shape)
        for each in (self.norm, self.up):
            each.build(shape)
        self.down.build((*shape[:-1], 16))

    def call(self, x):
        attended, _ = self.attention(x)
        x = self.norm(x + attended)
        return x + self.down(self.up(x))

    def compute_output_shape(self, shape):
        return shape


class Unsaved(Block):
    """Its config lacks what its constructor asks for."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def get_config(self):
        return {"name": self.name}


class Doubled(Attention):
    """Says how many heads there are in another place as well."""

    def call(self, x, cache=None):
        x, cache = super().call(x)
        return x * ops.cast(self.heads, "float32"), cache


@keras.saving.register_keras_serializable("blocks")
class Elsewhere(Block):
    """Holds such an attention."""

    kind = Doubled


class Declared(layers.Layer):
    """Its class says how wide its output is, and has it from the constructor."""

    def __init__(self, filters=8, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, padding="same", name="conv")

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x):
        return ops.relu(self.conv(x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.filters)

    def get_config(self):
        return super().get_config() | {"filters": self.filters}


def around(block, shape=(5, 8)):
    """A model of a block."""
    x = layers.Input(shape)
    return keras.Model(x, layers.Dense(2, name="head")(layers.Flatten()(block(x))))


def outputs(model, shape=(5, 8)):
    """What a model computes of inputs that nothing else has seen."""
    x = np.random.default_rng(9).normal(size=(3, *shape)).astype("float32")
    return ops.convert_to_numpy(model(x, training=False))


def livened(model):
    """Give biases values, which start as zeros."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("bias", "beta"):
            weight.assign(rng.normal(size=weight.shape))
    return model


def test_heads_go_from_a_block_that_counts_them_in_python(tmp_path):
    block = Block(name="block")
    model = livened(around(block))
    prune(model, sparsity=0.5)
    small = shrink(model).model
    attention = small.get_layer("block").attention
    assert attention.heads == 2
    assert attention.query.kernel.shape == (8, 6)
    assert attention.out.kernel.shape == (6, 8)
    assert small.get_layer("block").up.kernel.shape == (8, 8)
    np.testing.assert_allclose(outputs(small), outputs(model), rtol=1e-4, atol=1e-5)
    assert block.attention.heads == 4  # the model itself is as it was
    assert block.attention.query.kernel.shape == (8, 12)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert loaded.get_layer("block").attention.heads == 2
    np.testing.assert_allclose(outputs(loaded), outputs(small), rtol=1e-5, atol=1e-6)


def test_without_a_comparison_no_number_in_python_is_edited():
    model = livened(around(Block(name="block")))
    prune(model, sparsity=0.5)
    small = shrink(model, verify=False).model
    assert small.get_layer("block").attention.heads == 4
    assert small.get_layer("block").up.kernel.shape == (8, 8)
    np.testing.assert_allclose(outputs(small), outputs(model), rtol=1e-4, atol=1e-5)


def test_a_number_that_is_used_elsewhere_too_keeps_its_heads():
    model = livened(around(Elsewhere(name="block")))
    prune(model, sparsity=0.5)
    small = shrink(model).model
    assert small.get_layer("block").attention.heads == 4
    assert small.get_layer("block").up.kernel.shape == (8, 8)
    np.testing.assert_allclose(outputs(small), outputs(model), rtol=1e-4, atol=1e-5)


def test_a_layer_that_its_config_does_not_make_is_copied_part_by_part():
    block = Unsaved(8, name="block")
    model = livened(around(block))
    prune(model, sparsity=0.5)
    before = model.get_weights()
    with pytest.warns(PruneWarning, match="the config of its class, Unsaved, does not make it"):
        small = shrink(model).model
    made = small.get_layer("block")
    assert made is not block
    assert isinstance(made, Unsaved)
    assert made.attention.heads == 2
    np.testing.assert_allclose(outputs(small), outputs(model), rtol=1e-4, atol=1e-5)
    small.compile("sgd", "mse")
    small.fit(np.ones((4, 5, 8)), np.zeros((4, 2)), verbose=0)
    assert not np.allclose(outputs(small), outputs(model))  # it trains, and alone
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_a_class_says_of_its_output_is_not_believed_of_a_smaller_layer():
    block = Declared(name="block")
    x = layers.Input((6, 6, 3))
    joined = layers.Concatenate()([block(x), layers.Conv2D(4, 1, name="beside")(x)])
    h = layers.Conv2D(2, 1, name="head")(joined)
    model = livened(keras.Model(x, h))
    prune(model, sparsity=0.5)
    small = shrink(model).model
    assert small.get_layer("head").kernel.shape[-2] == 4 + 2
    shape = (6, 6, 3)
    np.testing.assert_allclose(outputs(small, shape), outputs(model, shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [4, 1])
def test_heads_of_keras_own_attention_are_channels(heads):
    x = layers.Input((5, 8))
    attention = layers.MultiHeadAttention(heads, 4, name="attention")
    h = layers.LayerNormalization()(x + attention(x, x))
    model = livened(keras.Model(x, layers.Dense(2, name="head")(layers.Flatten()(h))))
    # What is inside of one head goes with queries, or with values; heads go with all three.
    rules = [{"sparsity": 0.5, "op_types": ["EinsumDense"]}]
    L1NormPruner(model, rules, mode="dependency_aware").compress()
    small = shrink(model).model.get_layer("attention")
    expected = (8, 2, 4) if heads == 4 else (8, 1, 2)
    assert small._value_dense.kernel.shape == expected
    np.testing.assert_allclose(outputs(shrink(model).model), outputs(model), rtol=1e-4, atol=1e-5)


def test_models_inside_of_models_are_followed_layer_by_layer():
    x = layers.Input((5, 8))
    inner = keras.Model(x, Block(name="block")(x), name="inner")
    model = livened(around(inner))
    prune(model, sparsity=0.5)
    small = shrink(model).model
    assert small.get_layer("inner").get_layer("block").attention.heads == 2
    np.testing.assert_allclose(outputs(small), outputs(model), rtol=1e-4, atol=1e-5)


def test_recording_leaves_classes_and_attributes_as_they_were():
    block = Block(name="block")
    model = around(block)
    inside = block._flatten_layers()
    kinds, attributes = [*map(type, inside)], [set(vars(each)) for each in inside]
    shape = keras.KerasTensor.shape
    Coupling(model)
    assert [*map(type, inside)] == kinds
    assert [set(vars(each)) for each in inside] == attributes
    assert keras.KerasTensor.shape is shape


@keras.saving.register_keras_serializable("blocks")
class Anew(layers.Layer):
    """Makes a reshape in each call, which belongs to no layer and is told a number."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = layers.Dense(8, name="inside")
        self.up, self.back = layers.Dense(16, name="up"), layers.Dense(4, name="back")

    def build(self, shape):
        self.inside.build(shape)
        self.up.build((*shape[:-1], 8))
        self.back.build((shape[0], 1, 16))

    def call(self, x):
        pooled = ops.mean(self.up(self.inside(x)), axis=1)
        return self.back(layers.Reshape((1, 16))(pooled))


def test_a_reshape_that_is_made_in_a_call_keeps_what_it_is_told():
    model = livened(around(Anew(name="block")))
    prune(model, sparsity=0.5)
    small = shrink(model).model.get_layer("block")
    assert small.inside.kernel.shape == (8, 4)
    assert small.up.kernel.shape == (4, 16)

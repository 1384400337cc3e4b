"""Layers inside of others, and subclassed models."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_networks import Block, Net, composite, subclassed

from prune_core import SpeedupError
from prune_tf import (
    L1NormPruner,
    prune,
    set_masks,
    shrink,
)
from prune_tf.layers import layers_of


@pytest.mark.parametrize("build", [subclassed, composite])
def test_layers_inside_of_others_become_smaller_and_stay_so_in_files(build, tmp_path):
    model = build()
    config = [{"sparsity": 0.5, "op_names": ["block/up"]}]
    if isinstance(model, Net):
        config.append({"sparsity": 0.5, "op_names": ["conv"]})
    L1NormPruner(model, config).compress()
    nodes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    report = shrink(model)
    assert [len(layer._inbound_nodes) for layer in model._flatten_layers()] == nodes
    block = report.model.get_layer("block")
    assert isinstance(block, Block)
    assert (block.up.units, block.up.kernel.shape, block.down.kernel.shape) == (8, (8, 8), (8, 8))
    if isinstance(model, Net):
        assert isinstance(report.model, Net)
        assert report.model.conv.kernel.shape == (3, 3, 3, 4)
        assert report.model.norm.gamma.shape == (4,)
    path = tmp_path / "small.keras"
    report.model.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded.get_layer("block")) is type(block)
    assert loaded.count_params() == report.parameters[1]
    inputs = np.random.default_rng(0).normal(
        size=(2, *((6, 6, 3) if build is subclassed else (5, 8)))
    )
    np.testing.assert_array_equal(
        ops.convert_to_numpy(report.model(inputs)), ops.convert_to_numpy(loaded(inputs))
    )
    # And once more, from a model that is smaller than its class would build it.
    L1NormPruner(loaded, [{"sparsity": 0.5, "op_names": ["block/up"]}]).compress()
    assert shrink(loaded).model.get_layer("block").up.units == 4


def test_weights_of_a_layers_own_are_cut_where_it_computes_with_them():
    model = composite()
    gone = np.ones((8, 6), bool)
    gone[:, :2] = False
    set_masks(model, {"block": {"mix": gone}})
    block = shrink(model).model.get_layer("block")
    assert (block.mix.shape, block.back.shape) == ((8, 4), (4, 8))


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="on JAX, Keras infers the shape of attention from its queries, so that this is refused",
)
def test_channels_inside_of_heads_go_from_queries_and_keys_alike():
    model = composite()
    attention = model.get_layer("block").attention
    gone = np.ones((8, 2, 8), bool)
    gone[:, :, :3] = False
    names = {named.layer: named.name for named in layers_of(model)}
    masks = {names[each]: {"kernel": gone} for each in (attention.query_dense, attention.key_dense)}
    set_masks(model, masks)
    small = shrink(model).model.get_layer("block").attention
    assert small.query_dense.kernel.shape == small.key_dense.kernel.shape == (8, 2, 5)
    assert small.value_dense.kernel.shape == (8, 2, 8)


def test_a_subclassed_model_that_leaves_keras_is_refused(samples):
    class Odd(keras.Model):
        def __init__(self):
            super().__init__()
            self.fc = layers.Dense(4)

        def call(self, x):
            return self.fc(x) * float(ops.sum(x) > 0)

    model = Odd()
    model(np.ones((1, 3)))
    L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
    with pytest.raises(SpeedupError, match=r"Odd 'odd' computes in Python code of its own"):
        shrink(model, np.ones((2, 3), "float32"))


class Doubled(keras.Model):
    """Functional, but for what it makes of it."""

    def __init__(self):
        x = layers.Input((6,))
        super().__init__(x, layers.Dense(3)(layers.Dense(8, name="hidden")(x)), name="doubled")

    def call(self, x, training=None):
        return 2 * super().call(x, training=training)


def test_a_model_that_its_config_does_not_make_is_refused():
    model = Doubled()
    L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["hidden"]}]).compress()
    with pytest.raises(
        SpeedupError, match="'doubled', a Doubled, cannot be copied from its config"
    ):
        shrink(model)


class Unregistered(layers.Layer):
    """Keras does not find it by its name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(8, name="first"), layers.Dense(4, name="second")

    def call(self, inputs):
        return self.second(self.first(inputs))


def test_a_small_model_gets_smaller_again():
    model = keras.Sequential([layers.Input((4,)), Unregistered(name="block"), layers.Dense(2)])
    for left in (4, 2):
        prune(model, "l1", sparsity=0.5, targets="block/first")
        model = shrink(model).model
        assert model.get_layer("block").first.units == left


def own_loss(y, found):
    return keras.ops.mean(keras.ops.square(y - found))


class OwnLoss(keras.losses.Loss):
    def call(self, y, found):
        return keras.ops.mean(keras.ops.square(y - found), axis=-1)


@pytest.mark.parametrize("loss", [own_loss, OwnLoss()], ids=["function", "class"])
def test_a_loss_of_the_users_own_is_the_small_models_too(loss):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(8, name="a"), layers.Dense(2)])
    model.compile("sgd", loss, metrics=[own_loss])
    prune(model, "l1", sparsity=0.5)
    small = shrink(model).model
    assert small.get_layer("a").units == 4
    x, y = np.ones((4, 4)), np.ones((4, 2))
    expected = np.square(np.asarray(small.predict(x, verbose=0)) - y).mean()
    assert small.evaluate(x, y, verbose=0) == pytest.approx([expected] * 2, rel=1e-5)

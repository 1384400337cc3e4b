"""Masks are part of a model's state: whatever Keras writes and reads carries them."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from prune_core import PruneWarning
from prune_tf import LevelPruner, masks_of, set_masks, unwrap
from prune_tf.carrier import MaskCarrier

HALF = [{"sparsity": 0.5, "op_types": ["default"]}]


@keras.saving.register_keras_serializable(package="tests")
class Block(layers.Layer):
    """Layers inside, without names, and a weight of its own."""

    def __init__(self, units, **how):
        super().__init__(**how)
        self.units = units
        self.first, self.second = layers.Dense(units), layers.Dense(units)

    def build(self, shape):
        self.mixing = self.add_weight(shape=(self.units, self.units), name="mixing")
        self.first.build(shape)
        self.second.build((*shape[:-1], self.units))

    def call(self, x):
        return self.second(ops.relu(self.first(x))) @ self.mixing

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Net(keras.Model):
    def __init__(self, **how):
        super().__init__(**how)
        self.inner, self.head = layers.Dense(8), layers.Dense(4)

    def call(self, x):
        return self.head(ops.relu(self.inner(x)))


def plain():
    return keras.Sequential([layers.Input((6,)), layers.Dense(8), layers.Dense(4)])


def own_layers():
    x = layers.Input((6,))
    return keras.Model(x, layers.Dense(3)(Block(8)(x)))


def attention():
    x = layers.Input((5, 6))
    y = layers.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(x, layers.Dense(3)(layers.LayerNormalization()(y)))


def recurrent():
    x = layers.Input((5, 6))
    y = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    return keras.Model(x, layers.Dense(3)(layers.GRU(4)(y)))


def subclassed():
    model = Net()
    model(np.ones((1, 6), "float32"))
    return model


def nested():
    x = layers.Input((6,))
    return keras.Model(x, layers.Dense(3)(own_layers()(plain()(layers.Dense(6)(x)))))


def nested_with_equal_sizes():
    x = layers.Input((6,))
    body = keras.Sequential([layers.Input((6,)), Block(6), layers.Dense(6)])
    return keras.Model(x, layers.Dense(3)(body(x)))


BUILDERS = [plain, own_layers, attention, recurrent, subclassed, nested_with_equal_sizes]


def pruned(build):
    model = build()
    types = sorted({type(layer).__name__ for layer in model._flatten_layers() if maskable(layer)})
    LevelPruner(model, [{"sparsity": 0.5, "op_types": types}]).compress()
    return model


def maskable(layer):
    return type(layer).__name__ in ("Dense", "EinsumDense", "Block", "LSTMCell", "GRUCell")


def every_mask(model):
    return [pair for tensors in masks_of(model).values() for pair in tensors.items()]


def assert_same_masks(first, second):
    assert every_mask(first)
    for (name, one), (_, other) in zip(every_mask(first), every_mask(second), strict=True):
        assert not one.all() or "bias" in name  # a level takes nothing from biases
        np.testing.assert_array_equal(one, other)


def trained(model):
    x = np.random.default_rng(0).normal(size=(8, *model.input_shape[1:])).astype("float32")
    model.compile("sgd", "mse")
    model.fit(x, np.zeros(model(x).shape), verbose=0)
    return model


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_a_model_that_is_saved_and_loaded_is_masked_as_before(build, tmp_path, zeros_hold):
    model = pruned(build)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_masks(model, loaded)
    for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    if build is not subclassed:
        zeros_hold(trained(loaded))
    again = keras.models.load_model(saved(loaded, tmp_path / "again.keras"))
    assert_same_masks(model, again)


def saved(model, path):
    model.save(path)
    return path


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_weights_are_loaded_with_their_masks(build, tmp_path, zeros_hold):
    model = pruned(build)
    model.save_weights(tmp_path / "model.weights.h5")
    other = build()
    LevelPruner(other, [{"sparsity": 0.0, "op_types": types_of(model)}])
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_masks(model, other)
    zeros_hold(other)


def types_of(model):
    return sorted({type(each).__name__ for each in model._flatten_layers() if maskable(each)})


def test_dense_weights_leave_the_masks_in_force(tmp_path, zeros_hold):
    dense, model = plain(), pruned(plain)
    dense.save_weights(tmp_path / "dense.weights.h5")
    before = every_mask(model)
    model.load_weights(tmp_path / "dense.weights.h5")
    for (_, old), (_, new) in zip(before, every_mask(model), strict=True):
        np.testing.assert_array_equal(old, new)
    zeros_hold(model)


def test_masked_weights_are_read_by_a_model_that_knows_no_masks(tmp_path):
    model, other = pruned(attention), attention()
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for old, new in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("build", [plain, own_layers, attention], ids=lambda build: build.__name__)
def test_a_copy_from_the_config_has_the_masks(build):
    model = pruned(build)
    copied = keras.models.clone_model(model)
    assert_same_masks(model, copied)


@pytest.mark.tensorflow("tf.train.Checkpoint is TensorFlow's")
@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_checkpoints_of_tensorflow_hold_the_masks(build, tmp_path):
    import tensorflow as tf

    model = pruned(build)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    other = build()
    LevelPruner(other, [{"sparsity": 0.0, "op_types": types_of(model)}])
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_same_masks(model, other)


def test_the_best_of_a_training_is_loaded_with_its_masks(tmp_path, zeros_hold):
    model = pruned(own_layers)
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="loss")
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 6)), np.ones((8, 3)), verbose=0, callbacks=[keep])
    best = keras.models.load_model(tmp_path / "best.keras")
    assert_same_masks(model, best)
    zeros_hold(trained(best))


def test_a_process_that_loads_it_says_what_it_lacks_or_has_the_masks(tmp_path):
    model = pruned(attention)
    model.save(tmp_path / "model.keras")
    read = "m = keras.models.load_model(sys.argv[1]); print(len(prune_tf.masks_of(m)))"

    def run(imports):
        command = [sys.executable, "-c", f"import {imports}; {read}", str(tmp_path / "model.keras")]
        return subprocess.run(command, capture_output=True, text=True)

    for imports in ("sys, keras, prune_tf", "sys, prune_tf, keras"):
        done = run(imports)
        assert done.stdout.split()[-1:] == [str(len(masks_of(model)))], done.stderr
    done = run("sys, keras")
    assert done.returncode
    assert "prune_tf" in done.stderr


def test_a_carrier_is_still_what_it_was_and_becomes_plain_again():
    model = own_layers()
    block = model.layers[1]
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
    assert isinstance(block, MaskCarrier)
    assert isinstance(block, Block)
    assert type(block).__name__ == "Block"
    unwrap(model)
    assert type(block) is Block
    assert "MaskCarrier" not in model.to_json()
    assert "Masked" not in model.to_json()


def test_putting_on_masks_asks_no_constraint_of_the_users():
    model = keras.Sequential(
        [layers.Input((4,)), layers.Dense(3, kernel_constraint=keras.constraints.MaxNorm(0.1))]
    )
    before = model.get_weights()[0]
    pruner = LevelPruner(model, HALF)
    np.testing.assert_array_equal(model.get_weights()[0], before)
    _, masks = pruner.compress()
    [mask] = [tensors["kernel"] for tensors in masks.values()]
    np.testing.assert_array_equal(model.get_weights()[0], np.where(mask, before, 0))


def test_every_weight_of_a_cell_can_be_selected(zeros_hold):
    model = keras.Sequential([layers.Input((5, 6)), layers.LSTM(4, name="lstm"), layers.Dense(2)])
    cell = model.layers[0].cell
    recurrent = [{"sparsity": 0.5, "op_names": ["lstm/lstm_cell/recurrent_kernel"]}]
    LevelPruner(model, recurrent).compress()
    assert (ops.convert_to_numpy(cell.recurrent_kernel) == 0).mean() == 0.5
    assert (ops.convert_to_numpy(cell.kernel) != 0).all()
    pruner = LevelPruner(model, [{"sparsity": 0.75, "op_types": ["LSTMCell"]}])
    pruner.compress()
    assert pruner.sparsity() == {"lstm/lstm_cell": 0.75, "lstm/lstm_cell/recurrent_kernel": 0.75}
    zeros_hold(trained(model))


def test_weights_of_ones_own_can_be_masked(zeros_hold):
    model = own_layers()
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Block"]}]).compress()
    [(name, tensors)] = masks_of(model).items()
    assert [*tensors] == ["mixing"]
    assert (ops.convert_to_numpy(model.layers[1].mixing) == 0).mean() == 0.5
    set_masks(model, {f"{name}/{model.layers[1].first.name}": {"bias": np.arange(8) > 1}})
    zeros_hold(trained(model))


def test_less_than_is_masked_already_is_not_reached_in_silence():
    model = plain()
    LevelPruner(model, [{"sparsity": 0.75, "op_types": ["Dense"]}]).compress()
    with pytest.warns(PruneWarning, match=r"75.0% of 'dense.*is masked already, and 50.0% is"):
        LevelPruner(model, HALF).compress()
    LevelPruner(model, [{"sparsity": 0.75, "op_types": ["Dense"]}]).compress()

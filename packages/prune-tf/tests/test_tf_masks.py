"""Masks on layers: put on, kept by training, carried by copies and files, taken off."""

import copy

import keras
import numpy as np
import pytest
from keras import layers, ops

from prune_core import MaskError
from prune_tf import LevelPruner, Masked, apply_masks, masks_of, set_masks, unwrap

RULES = [{"sparsity": 0.5, "op_types": ["default"]}]
LOSS = "sparse_categorical_crossentropy"


def half(shape, seed=0):
    return np.random.default_rng(seed).random(shape) > 0.5


def test_a_mask_sets_zeros_and_leaves_the_rest(cnn):
    before = cnn.get_layer("conv").kernel.numpy()
    mask = half(before.shape)
    set_masks(cnn, {"conv": {"kernel": mask}})
    np.testing.assert_array_equal(cnn.get_layer("conv").kernel.numpy(), np.where(mask, before, 0))
    np.testing.assert_array_equal(masks_of(cnn)["conv"]["kernel"], mask)


def test_masks_of_a_plain_model_are_none(cnn):
    assert masks_of(cnn) == {}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"convv": {"kernel": np.ones(1)}}, "no layer of that name. Did you mean 'conv'"),
        ({"conv": {"weight": np.ones(1)}}, "'weight'; this Conv2D can be masked in kernel, bias"),
        ({"relu": {"kernel": np.ones(1)}}, "this ReLU can be masked in nothing"),
        ({"conv": {"kernel": np.ones((3, 3))}}, r"shape \(3, 3\); the variable has \(3, 3, 3, 8\)"),
        ({"conv": {"bias": np.full(8, 0.5)}}, "holds 0.5; a mask holds 0"),
        ({"conv": np.ones((3, 3, 3, 8))}, r"masks\['conv'\] is a ndarray; masks are a mapping"),
    ],
)
def test_a_mask_that_does_not_fit_changes_nothing(cnn, masks, message):
    before = cnn.get_weights()
    with pytest.raises(MaskError, match=message):
        set_masks(cnn, {"head": {"kernel": half(cnn.get_layer("head").kernel.shape)}} | masks)
    assert masks_of(cnn) == {}
    for old, new in zip(before, cnn.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"run_eagerly": True},
        pytest.param(
            {"jit_compile": True},
            marks=pytest.mark.tensorflow("an option with which TensorFlow compiles another step"),
        ),
        pytest.param(
            {"steps_per_execution": 3},
            marks=pytest.mark.tensorflow("an option with which TensorFlow compiles another step"),
        ),
    ],
    ids=str,
)
def test_training_keeps_the_zeros(cnn, samples, zeros_hold, how):
    LevelPruner(cnn, RULES).compress()
    cnn.compile(keras.optimizers.Adam(0.01), LOSS, **how)
    kernel = cnn.get_layer("conv").kernel.numpy()
    cnn.fit(*samples, batch_size=16, verbose=0)
    zeros_hold(cnn)
    assert (cnn.get_layer("conv").kernel.numpy() != kernel).any()


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01, clipnorm=1.0),
        lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    ],
    ids=["sgd", "accumulating", "loss-scaled"],
)
def test_every_optimizer_keeps_the_zeros(cnn, samples, zeros_hold, optimizer):
    LevelPruner(cnn, RULES).compress()
    cnn.compile(optimizer(), LOSS)
    cnn.fit(*samples, batch_size=16, verbose=0)
    zeros_hold(cnn)


def test_mixed_precision_keeps_the_zeros(samples, zeros_hold):
    policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    model = keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Flatten(), layers.Dense(4, dtype=policy)]
    )
    LevelPruner(model, RULES).compress()
    model.compile("adam", LOSS)
    model.fit(*samples, verbose=0)
    zeros_hold(model)


def test_a_step_compiled_before_knows_the_masks(cnn, samples, zeros_hold):
    cnn.compile("adam", LOSS)
    cnn.fit(*samples, verbose=0)
    LevelPruner(cnn, RULES).compress()
    cnn.fit(*samples, verbose=0)
    zeros_hold(cnn)


def test_a_model_around_the_masked_one_needs_to_be_compiled_again(cnn, samples, zeros_hold):
    outer = keras.Sequential([layers.Input((8, 8, 3)), cnn, keras.layers.Dense(4)])
    outer.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    outer.fit(*samples, verbose=0)
    set_masks(cnn, {"conv": {"kernel": half((3, 3, 3, 8))}})
    outer.compile("sgd", outer.loss)
    outer.fit(*samples, verbose=0)
    zeros_hold(cnn)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX compiles masks in, so that its step is renewed"
)
def test_masks_change_without_compiling_again(cnn, samples, zeros_hold):
    pruner = LevelPruner(cnn, RULES)
    cnn.compile("adam", LOSS)
    cnn.fit(*samples, verbose=0)
    compiled = cnn.train_function
    pruner.compress()
    cnn.fit(*samples, verbose=0)
    assert cnn.train_function is compiled
    zeros_hold(cnn)


@pytest.mark.tensorflow("its loop has a tf.GradientTape")
def test_a_custom_loop_with_an_optimizer_keeps_the_zeros(cnn, samples, zeros_hold):
    import tensorflow as tf

    LevelPruner(cnn, RULES).compress()
    optimizer = keras.optimizers.SGD(0.1)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = ops.mean(keras.losses.sparse_categorical_crossentropy(y, cnn(x), True))
        gradients = tape.gradient(loss, cnn.trainable_variables)
        optimizer.apply_gradients(zip(gradients, cnn.trainable_variables, strict=True))

    step(*samples)
    zeros_hold(cnn)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a loop in the manner of torch")
def test_a_custom_torch_loop_with_an_optimizer_keeps_the_zeros(cnn, samples, zeros_hold):
    import torch

    LevelPruner(cnn, RULES).compress()
    optimizer = keras.optimizers.SGD(0.1)
    x, y = (torch.as_tensor(array) for array in samples)
    torch.nn.functional.cross_entropy(cnn(x), y).backward()
    kernel = cnn.get_layer("conv").kernel.numpy()
    with torch.no_grad():
        optimizer.apply([v.value.grad for v in cnn.trainable_weights], cnn.trainable_weights)
    zeros_hold(cnn)
    assert (cnn.get_layer("conv").kernel.numpy() != kernel).any()


def test_apply_masks_puts_zeros_back_after_direct_writes(cnn, zeros_hold):
    LevelPruner(cnn, RULES).compress()
    for variable in cnn.trainable_variables:
        variable.assign(np.ones(variable.shape))
    apply_masks(cnn)
    zeros_hold(cnn)


def test_masks_travel_in_keras_files(cnn, samples, zeros_hold, tmp_path):
    LevelPruner(cnn, RULES).compress()
    cnn.compile("adam", LOSS)
    cnn.fit(*samples, verbose=0)
    cnn.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        masks_of(loaded)["conv"]["kernel"], masks_of(cnn)["conv"]["kernel"]
    )
    loaded.fit(*samples, verbose=0)
    zeros_hold(loaded)


def copied_by_keras(model):
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    return copied


@pytest.mark.parametrize("duplicate", [copied_by_keras, copy.deepcopy])
def test_a_copy_has_masks_of_its_own(cnn, samples, zeros_hold, duplicate):
    LevelPruner(cnn, RULES).compress()
    copied = duplicate(cnn)
    unwrap(cnn)
    copied.compile("adam", LOSS)
    copied.fit(*samples, verbose=0)
    zeros_hold(copied)


def test_a_recurrent_layer_is_masked_inside(zeros_hold, tmp_path):
    model = keras.Sequential([layers.Input((5, 3)), layers.LSTM(4, name="lstm"), layers.Dense(1)])
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["LSTMCell"]}]).compress()
    model.save(tmp_path / "lstm.keras")
    loaded = keras.models.load_model(tmp_path / "lstm.keras")
    loaded.compile("sgd", "mse")
    loaded.fit(np.ones((8, 5, 3)), np.ones((8, 1)), verbose=0)
    zeros_hold(loaded)
    assert list(masks_of(loaded)) == ["lstm/lstm_cell"]


def test_the_users_own_constraint_still_holds_and_comes_back():
    mine = keras.constraints.MaxNorm(0.1)
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, kernel_constraint=mine)])
    layer = model.layers[0]
    set_masks(model, {layer.name: {"kernel": half((4, 3))}})
    copied = copied_by_keras(model).layers[0]
    for held in (layer, copied):
        assert isinstance(held.kernel.constraint, Masked)
        held.kernel.assign(np.ones((4, 3)))
        held.kernel.assign(held.kernel.constraint(held.kernel))
        assert np.linalg.norm(held.kernel.numpy(), axis=0).max() < 0.11
    unwrap(model)
    assert layer.kernel.constraint is layer.kernel_constraint is mine


def test_unwrapped_is_plain_keras(cnn, tmp_path):
    LevelPruner(cnn, RULES).compress()
    assert unwrap(cnn) is cnn
    assert masks_of(cnn) == {}
    assert "Masked" not in cnn.to_json()
    assert (cnn.get_layer("conv").kernel.numpy() == 0).mean() == 0.5


def test_a_subclassed_model_is_masked(samples, zeros_hold):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.inner = layers.Flatten(), layers.Dense(8, name="inner")
            self.head = layers.Dense(4, activation="softmax", name="head")

        def call(self, x):
            return self.head(self.inner(self.flatten(x)))

    model = Net()
    model(samples[0][:1])
    LevelPruner(model, RULES).compress()
    model.compile("adam", LOSS)
    model.fit(*samples, verbose=0)
    zeros_hold(model)
    assert set(masks_of(model)) == {"inner", "head"}


def test_masking_an_attention_layer_inside(zeros_hold):
    x = layers.Input((4, 8))
    model = keras.Model(x, layers.MultiHeadAttention(2, 4, name="attention")(x, x))
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["EinsumDense"]}]).compress()
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4, 8)), np.ones((4, 4, 8)), verbose=0)
    zeros_hold(model)
    assert set(masks_of(model)) == {
        f"attention/{part}" for part in ("query", "key", "value", "attention_output")
    }

"""Smaller models: by hand, block by block, and what is refused."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

from prune_core import ConfigError, MaskError, PruneWarning, SpeedupError
from prune_speedup.engine.values import UNIFORM, ZERO
from prune_tf import (
    L1NormPruner,
    LevelPruner,
    SlimPruner,
    apply_masks,
    masks_of,
    set_masks,
    shrink,
    unwrap,
)
from prune_tf.layers import layers_of
from prune_tf.speedup.rules import RULES

HALF = [{"sparsity": 0.5, "op_types": ["default"]}, {"exclude": True, "op_names": ["out"]}]


def realistic(model):
    """Statistics, scales and offsets as after training, and biases that are not zero."""
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        for variable in layer.weights:
            shape = tuple(variable.shape)
            if variable.name in ("bias", "beta", "moving_mean"):
                variable.assign(rng.normal(size=shape) * 0.3)
            if variable.name in ("gamma", "moving_variance"):
                variable.assign(rng.uniform(0.5, 2.0, size=shape))
    return model


def image(size=12, channels=3):
    return layers.Input((size, size, channels))


def conv_norm(x, filters, kernel=3, activation="relu", **how):
    x = layers.Conv2D(filters, kernel, use_bias=False, **how)(x)
    return layers.Activation(activation)(layers.BatchNormalization()(x))


def ended(x, y):
    if len(y.shape) > 2:
        y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, layers.Dense(3, name="out")(y))


def plain():
    x = image()
    return ended(x, conv_norm(conv_norm(conv_norm(x, 8), 12), 8))


def padded():
    x = image()
    y = conv_norm(conv_norm(conv_norm(x, 8, padding="same"), 12, padding="same"), 8)
    return ended(x, y)


def sigmoid_and_padding():
    x = image()
    y = conv_norm(x, 8, activation="sigmoid", padding="same")
    return ended(x, conv_norm(conv_norm(y, 12, activation="silu", padding="same"), 6))


def residual():
    x = image()
    start = conv_norm(x, 8, padding="same")
    y = conv_norm(start, 12, padding="same")
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
    return ended(x, layers.ReLU()(layers.Add()([start, y])))


def dense_block():
    x = image()
    start = conv_norm(x, 6, padding="same")
    y = layers.Concatenate()([start, conv_norm(start, 6, padding="same")])
    return ended(x, conv_norm(y, 8))


def inverted_bottleneck():
    x = image()
    start = conv_norm(x, 8, padding="same")
    y = conv_norm(start, 16, 1, "relu6")
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(8, 1)(y))
    return ended(x, layers.Add()([start, y]))


def strided_depthwise():
    x = image()
    y = layers.ZeroPadding2D(((0, 1), (0, 1)))(conv_norm(x, 8))
    y = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, activation="relu")(y)
    return ended(x, layers.Conv2D(8, 1)(y))


def separable():
    x = image()
    y = layers.SeparableConv2D(8, 3, depth_multiplier=2, padding="same")(conv_norm(x, 8))
    return ended(x, layers.SeparableConv2D(6, 3)(layers.LeakyReLU()(y)))


def flattened():
    x = image(8)
    y = layers.Flatten()(layers.MaxPooling2D(2)(conv_norm(x, 8)))
    return ended(x, layers.Dropout(0.5)(layers.Dense(10, activation="gelu")(y)))


def squeeze_excite():
    x = image()
    y = conv_norm(x, 8, activation="silu", padding="same")
    gate = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(y))
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    return ended(x, conv_norm(layers.Multiply()([y, gate]), 6))


def operators():
    x = image()
    y, z = conv_norm(x, 8, padding="same"), conv_norm(x, 8, padding="same")
    return ended(x, conv_norm(ops.relu(y + z) * 0.5, 6))


def upsampled():
    x = image()
    y = layers.UpSampling2D(2)(conv_norm(x, 8))
    return ended(x, layers.Conv2DTranspose(6, 3, activation="relu")(y))


def permuted():
    x = image(8)
    y = layers.Permute((2, 1, 3))(conv_norm(x, 8))
    return ended(x, layers.PReLU(shared_axes=[1, 2])(conv_norm(layers.Cropping2D(1)(y), 6)))


def shared():
    x, twin = image(), layers.Conv2D(8, 3, activation="relu", padding="same")
    y = conv_norm(x, 3, padding="same")
    return ended(x, layers.Concatenate()([twin(x), twin(y)]))


def nested():
    x = image()
    inner = image(12)
    body = keras.Model(inner, conv_norm(conv_norm(inner, 8, padding="same"), 6), name="body")
    return ended(x, conv_norm(body(layers.Rescaling(2.0)(x)), 8))


def one_dimensional():
    x = layers.Input((20, 4))
    y = layers.Conv1D(8, 3, activation="relu")(x)
    y = layers.Conv1D(6, 3, padding="causal", activation="relu")(y)
    return ended(x, layers.GlobalMaxPooling1D()(y))


def reshaped():
    x = image(8)
    y = ops.reshape(layers.Conv2D(8, 3, activation="relu")(x), (-1, 36, 8))
    y = ops.reshape(layers.Dense(6, activation="relu")(y), (-1, 216))
    return ended(x, layers.Dense(10, activation="relu")(y))


def several_at_once():
    x = layers.Input((12,))
    y, z = layers.Identity()([layers.Dense(8, activation="relu")(x), layers.Dense(6)(x)])
    return ended(x, layers.Concatenate()([y, z]))


def sequential():
    return keras.Sequential(
        [
            image(8),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(10, activation="tanh"),
            layers.Dense(3, name="out"),
        ]
    )


MODELS = [
    *(plain, padded, sigmoid_and_padding, residual, dense_block, inverted_bottleneck),
    *(strided_depthwise, separable, flattened, squeeze_excite, operators, upsampled, permuted),
    *(shared, nested, one_dimensional, reshaped, several_at_once, sequential),
]


def outputs(model, seed=3):
    rng = np.random.default_rng(seed)
    shape = model.inputs[0].shape[1:]
    # Each with a level and a scale of its own: of plain noise, pooling leaves next to nothing.
    level, scale = (rng.uniform(0.5, 2.0, size=(4, *[1] * len(shape))) for _ in range(2))
    x = (rng.normal(size=(4, *shape)) * scale + level).astype("float32")
    return ops.convert_to_numpy(model(x, training=False))


def depends_on_the_input(model):
    """Whether there is a signal; two networks in which it dies out on the way are always equal."""
    y = outputs(model)
    return np.ptp(y, axis=0).max() > 1e-3 * np.abs(y).max()


def settled(model):
    """Give batch norm the statistics of what really comes in."""
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    model(np.random.default_rng(5).normal(size=(16, *model.inputs[0].shape[1:])), training=True)
    for norm in norms:
        norm.momentum = 0.99
    return model


def assert_equal(first, second):
    a, b = outputs(first), outputs(second)
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_the_small_model_computes_what_the_masked_one_does(build):
    model = realistic(build())
    L1NormPruner(model, HALF).compress()
    before = [np.array(w) for w in model.get_weights()]
    report = shrink(model)
    assert report.difference <= 1e-5
    assert report.parameters[1] < report.parameters[0]
    assert report.unknown == {}
    assert_equal(model, report.model)
    assert depends_on_the_input(report.model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("build", [padded, residual, inverted_bottleneck], ids=lambda b: b.__name__)
def test_masking_norms_too_lets_more_go(build):
    model = realistic(build())
    L1NormPruner(model, HALF).compress()
    kept, masked = shrink(model), shrink(model, constants="zero")
    assert masked.parameters[1] <= kept.parameters[1]
    assert masked.held == 0
    assert masked.moved > 0 == kept.moved
    assert masked.difference <= 1e-5


def test_exactly_the_masked_filters_go():
    model = keras.Sequential(
        [
            image(8),
            layers.Conv2D(4, 3, name="first"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    keep = np.array([True, False, True, False])
    mask = np.broadcast_to(keep, (3, 3, 3, 4))
    set_masks(model, {"first": {"kernel": mask, "bias": keep}})
    kernel = model.get_layer("first").kernel.numpy()
    head = model.get_layer("out").kernel.numpy()
    small = shrink(model).model
    np.testing.assert_array_equal(small.get_layer("first").kernel.numpy(), kernel[..., keep])
    np.testing.assert_array_equal(small.get_layer("out").kernel.numpy(), head[np.tile(keep, 36)])
    assert small.get_layer("first").filters == 2
    assert masks_of(small) == {}


def test_a_constant_moves_into_the_next_bias():
    model = keras.Sequential(
        [
            layers.Input((2,)),
            layers.Dense(2, activation="relu", name="first"),
            layers.Dense(1, use_bias=False, name="out"),
        ]
    )
    model.set_weights([np.eye(2), np.array([0.0, 3.0]), np.array([[1.0], [2.0]])])
    set_masks(model, {"first": {"kernel": np.array([[True, False], [True, False]])}})
    small = shrink(model).model
    assert small.get_layer("out").bias.numpy().tolist() == [6.0]
    assert small.get_layer("out").kernel.numpy().tolist() == [[1.0]]


def test_constants_that_reach_padded_borders_are_merged_into_one():
    model = realistic(sigmoid_and_padding())
    L1NormPruner(model, HALF).compress()
    report = shrink(model)
    first, second, _ = (w for w in report.model.layers if isinstance(w, layers.Conv2D))
    assert first.filters == 4 + 1
    assert second.filters == 6
    assert report.held == 1
    assert 'constants="zero"' in str(report)


def test_a_channel_that_nobody_reads_goes_too():
    model = keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, name="first"), layers.Dense(2, name="out")]
    )
    mask = np.ones((4, 2), bool)
    mask[1] = False
    set_masks(model, {"out": {"kernel": mask}})
    assert shrink(model).model.get_layer("first").units == 3


def test_masks_that_are_left_stay_in_force(zeros_hold):
    model = realistic(plain())
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
    L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    model.compile("adam", "mse")
    small = shrink(model).model
    assert small.compiled
    assert list(masks_of(small)) == ["out"]
    small.fit(np.ones((8, 12, 12, 3)), np.ones((8, 3)), verbose=0)
    zeros_hold(small)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_groups_of_a_convolution_go_as_wholes(padding):
    x = image()
    y = layers.Conv2D(8, 1, name="before")(x)
    y = layers.Conv2D(12, 3, groups=4, padding=padding, activation="relu", name="grouped")(y)
    model = realistic(ended(x, layers.Conv2D(6, 1, name="after")(y)))
    kernel = np.ones(model.get_layer("grouped").kernel.shape, bool)
    kernel[..., 3:7] = False  # all outputs of the second group, and one of the third
    set_masks(model, {"grouped": {"kernel": kernel}})
    report = shrink(model)
    small = {name: report.model.get_layer(name) for name in ("before", "grouped", "after")}
    assert (small["grouped"].groups, small["grouped"].filters) == (3, 9)
    assert small["before"].filters == 6
    assert small["after"].kernel.shape == (1, 1, 9, 6)
    assert report.unknown == {}
    assert_equal(model, report.model)


def test_channels_of_groups_are_chosen_as_wholes():
    x = image()
    y = layers.Conv2D(8, 1, name="before")(x)
    y = layers.Conv2D(12, 3, groups=4, name="grouped")(y)
    model = realistic(ended(x, layers.Conv2D(6, 1, name="after")(y)))
    L1NormPruner(model, HALF, mode="dependency_aware").compress()
    small = shrink(model).model
    assert (small.get_layer("grouped").groups, small.get_layer("before").filters) == (2, 4)


def test_slim_masks_make_small_models_too():
    model = realistic(padded())
    SlimPruner(model, [{"total_sparsity": 0.5, "op_types": ["default"]}]).compress()
    report = shrink(model)
    assert report.parameters[1] < 0.6 * report.parameters[0]
    assert_equal(model, report.model)


def test_masks_can_be_given_for_a_model_that_has_none(tmp_path):
    model = realistic(plain())
    pruner = L1NormPruner(keras.models.clone_model(model), HALF)
    _, masks = pruner.compress()
    pruner.save_masks(tmp_path / "masks.safetensors")
    for given in (masks, tmp_path / "masks.safetensors"):
        report = shrink(model, masks=given)
        assert report.parameters[1] < report.parameters[0]
        assert masks_of(model) == {}


def test_the_last_channel_of_a_layer_stays():
    model = realistic(plain())
    conv = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))
    set_masks(model, {conv.name: {"kernel": np.zeros(conv.kernel.shape, bool)}})
    with pytest.warns(PruneWarning, match="nothing of the input reaches it"):
        report = shrink(model)
    assert report.model.get_layer(conv.name).filters == 1
    assert_equal(model, report.model)


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


def test_a_layer_of_which_a_copy_has_two_is_refused():
    x, y, twin = layers.Input((5, 8)), layers.Input((8,)), layers.Dense(8, name="twin")
    both = [layers.GlobalAveragePooling1D()(layers.TimeDistributed(twin, name="each")(x)), twin(y)]
    hidden = layers.Dense(6, name="hidden")(layers.Concatenate()(both))
    model = keras.Model([x, y], layers.Dense(3, name="out")(hidden))
    L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["hidden"]}]).compress()
    with pytest.raises(
        SpeedupError, match="'twin' is used both inside .* in a copy it would be two"
    ):
        shrink(model)


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


def test_what_the_model_was_compiled_with_comes_along_where_it_can(samples):
    def mean_square(y, predicted):
        return ops.mean(ops.square(predicted), axis=-1)

    model = sequential()
    L1NormPruner(model, HALF).compress()
    model.compile("sgd", "sparse_categorical_crossentropy")
    small = shrink(model).model
    small.fit(samples[0], samples[1] % 3, verbose=0)
    assert small.optimizer is not model.optimizer
    model.compile("sgd", mean_square)
    with pytest.warns(PruneWarning, match=r"not compiled; call compile\(\).*'mean_square'"):
        report = shrink(model)
    assert not report.model.compiled
    assert model.compiled
    assert_equal(model, report.model)


def test_a_wrong_rule_is_found_out_and_nothing_is_returned(monkeypatch):
    model = realistic(padded())
    L1NormPruner(model, HALF).compress()
    before = [np.array(w) for w in model.get_weights()]

    def forgets_the_offset(flow, call):
        made = RULES["BatchNormalization"](flow, call)
        [group] = made.groups
        states = group.states()
        zeros = group.with_states(np.where(states == UNIFORM, ZERO, states))
        return dataclasses.replace(made, groups=(zeros,))

    rules = RULES | {"BatchNormalization": forgets_the_offset}
    monkeypatch.setattr("prune_tf.speedup.rules.registry.RULES", rules)
    with pytest.raises(SpeedupError, match="outputs differ .* 'functional.*' is untouched"):
        shrink(model)
    monkeypatch.setattr(
        "prune_tf.speedup.rules.registry.RULES",
        RULES | {"BatchNormalization": RULES["Identity"]},
    )
    with pytest.raises(SpeedupError, match="do not fit together"):
        shrink(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@keras.saving.register_keras_serializable()
class Block(layers.Layer):
    """A layer that is made of others, and has weights of its own."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.norm = layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(2, 8)
        self.up = layers.Dense(2 * units, activation="gelu", name="up")
        self.down = layers.Dense(units, name="down")

    def build(self, shape):
        self.mix = self.add_weight(shape=(shape[-1], 6), name="mix")
        self.back = self.add_weight(shape=(6, shape[-1]), name="back")
        super().build(shape)

    def call(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y)
        x = x + self.down(self.up(x))
        return x + ops.matmul(ops.relu(ops.matmul(x, self.mix)), self.back)

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable()
class Net(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = layers.Conv2D(8, 3, padding="same", name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.flat = layers.Reshape((-1, 8))
        self.wide = layers.Conv2D(8, 3, name="wide")
        self.block = Block(8, name="block")
        self.head = layers.Dense(3, name="head")

    def call(self, x, training=None):
        y = ops.relu(self.norm(self.conv(x), training=training))
        return self.head(ops.mean(self.block(self.flat(self.wide(y))), axis=1))


def subclassed():
    model = Net()
    model(np.ones((1, 6, 6, 3)))
    return model


def composite():
    x = layers.Input((5, 8))
    return keras.Model(x, layers.Dense(3, name="head")(Block(8, name="block")(x)))


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_equals_what_is_no_number(cnn, value):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    cnn.get_layer("head").bias.assign([0.0, value, 0.0, 0.0])
    with pytest.raises(SpeedupError, match="masked model puts out NaN or infinity"):
        shrink(cnn)


def test_a_small_model_that_puts_out_no_number_is_found_out(cnn, monkeypatch):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()

    def fill(old, new, plan):
        if new.weights:
            new.set_weights([np.full(w.shape, np.nan) for w in new.weights])

    monkeypatch.setattr("prune_tf.speedup.rebuild._fill", fill)
    with pytest.raises(SpeedupError, match="outputs differ from the masked model's by inf"):
        shrink(cnn)


def test_weights_that_have_grown_back_are_named(cnn):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    kernel = cnn.get_layer("conv").kernel
    kernel.assign(kernel + 1)
    with pytest.raises(SpeedupError, match="'conv' 'kernel' is not zero .* call .*apply_masks"):
        shrink(cnn)
    apply_masks(cnn)
    assert shrink(cnn).difference <= 1e-5


def test_what_cannot_be_made_smaller_says_why(cnn):
    with pytest.warns(PruneWarning, match="Nothing was removed: nothing of 'cnn' is masked"):
        report = shrink(cnn)
    assert report.model is cnn
    assert report.parameters == (cnn.count_params(), cnn.count_params())
    LevelPruner(cnn, [{"sparsity": 0.5, "op_types": ["default"]}]).compress()
    with pytest.warns(PruneWarning, match="single weights that are masked cannot be taken out"):
        assert shrink(cnn).changes == ()


def test_zeros_that_nothing_masks_go_as_well(cnn):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    expected = shrink(cnn).parameters
    assert shrink(unwrap(cnn)).parameters == expected


def test_example_inputs_that_do_not_fit(cnn):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    with pytest.raises(ConfigError, match=r"shape \(1, 3, 8, 8\); it takes \(None, 8, 8, 3\)"):
        shrink(cnn, np.ones((1, 3, 8, 8), "float32"))
    with pytest.raises(ConfigError, match="looks like masks; write shrink"):
        shrink(cnn, masks_of(cnn))


def test_mistakes_in_arguments(cnn):
    with pytest.raises(ConfigError, match="constants is 'zeros'.*Did you mean 'zero'"):
        shrink(cnn, constants="zeros")
    with pytest.raises(ConfigError, match="tolerance is nan; it must be a number"):
        shrink(cnn, tolerance=float("nan"))
    with pytest.raises(MaskError, match="no layer of that name"):
        shrink(cnn, masks={"nope": {"kernel": np.ones(1)}})
    with pytest.raises(SpeedupError, match="model is a builtins.int; it must be a Keras 3 model"):
        shrink(3)


@pytest.mark.tensorflow
def test_words_are_made_up():
    x = layers.Input((1,), dtype="string")
    y = layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot")(x)
    model = keras.Model(x, layers.Dense(3, name="out")(layers.Dense(8)(y)))
    L1NormPruner(model, HALF).compress()
    assert shrink(model).difference <= 1e-5
    assert shrink(model, ops.convert_to_tensor([["a"], ["b"], ["c"]])).difference <= 1e-5


def test_a_network_of_keras_applications():
    model = realistic(
        keras.applications.MobileNetV2(
            alpha=0.35,
            weights=None,
            input_shape=(32, 32, 3),
            classes=10,
            classifier_activation=None,
        )
    )
    L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2D", "DepthwiseConv2D"]}]).compress()
    report = shrink(settled(model), constants="zero")
    assert report.parameters[1] < 0.6 * report.parameters[0]
    assert report.difference <= 1e-5
    assert report.unknown == {}
    assert depends_on_the_input(report.model)

"""Models with state, orders and types that only whole models have."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from prune_core import ConfigError, PruneError, PruneWarning
from prune_tf import (
    LevelPruner,
    PruningSchedule,
    apply_masks,
    gzipped_size,
    masks_of,
    prune,
    set_masks,
    shrink,
    units,
    unwrap,
)
from prune_tf.pruning.norm import L1NormPruner
from prune_tf.speedup.rules import RULES, rule

ALL = [{"sparsity": 0.5, "op_types": ["default"]}]


def two_dense(x, hidden=8):
    """End with a hidden layer that can be pruned and an output."""
    return layers.Dense(3, name="head")(layers.Dense(hidden, activation="relu", name="hidden")(x))


def adapted_normalization():
    x, normalization = layers.Input((6,)), layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(100, 50, (200, 6)))
    return keras.Model(x, two_dense(normalization(x)))


def adapted_lookup():
    x, lookup = layers.Input((2,), dtype="string"), layers.StringLookup()
    lookup.adapt(np.array([["a"], ["b"], ["some words"]]))
    return keras.Model(x, two_dense(layers.Flatten()(layers.Embedding(6, 4)(lookup(x)))))


def adapted_text():
    x, text = layers.Input((1,), dtype="string"), layers.TextVectorization(output_sequence_length=4)
    text.adapt(["a b", "some other words"])
    return keras.Model(
        x, two_dense(layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(text(x))))
    )


def adapted_discretization():
    x, bins = layers.Input((2,)), layers.Discretization(num_bins=4)
    bins.adapt(np.random.default_rng(0).normal(size=(200, 2)))
    return keras.Model(x, two_dense(layers.Flatten()(layers.Embedding(6, 4)(bins(x)))))


@pytest.mark.tensorflow("only TensorFlow numbers variables so")
def test_a_normalization_before_convolutions_keeps_its_numbers():
    """Keras numbers its variables, and the copy's have other numbers."""
    x, normalization = layers.Input((8, 8, 3)), layers.Normalization()
    h = layers.Rescaling(1 / 255)(x)
    h = layers.ZeroPadding2D(1)(normalization(h))
    h = layers.Conv2D(8, 3, activation="relu", name="hidden")(h)
    model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(h)))
    normalization.adapt(np.random.default_rng(0).random((20, 8, 8, 3)))
    prune(model, sparsity=0.5)
    report = shrink(model)
    assert report.model.get_layer("hidden").filters == 4
    assert report.difference < 1e-6


@pytest.mark.tensorflow("Keras has layers for text on TensorFlow only")
@pytest.mark.parametrize(
    "build", [adapted_normalization, adapted_lookup, adapted_text, adapted_discretization]
)
def test_what_a_layer_has_learned_without_weights_is_in_the_small_model(build):
    model = build()
    prune(model, sparsity=0.5)
    report = shrink(model)
    assert report.model.get_layer("hidden").units == 4
    assert report.difference < 1e-6
    state = model.layers[1]
    if isinstance(state, layers.Normalization):
        x = np.full((2, 6), 80.0, "float32")
        np.testing.assert_allclose(report.model(x), model(x), rtol=1e-5, atol=1e-5)
        assert float(np.abs(state(x)).max()) < 3  # so that it does normalize
    elif not isinstance(state, layers.Discretization):
        assert report.model.layers[1].get_vocabulary() == state.get_vocabulary()


@pytest.mark.parametrize("how", ["masks", "zero"])
def test_masks_that_are_given_are_compared_with_the_model_itself(how):
    """A copy as the reference would share the mistakes of the copy that is to be proved."""
    model = adapted_normalization()
    kernel, bias = np.ones((6, 8), bool), np.ones(8, bool)
    kernel[:, :4] = bias[:4] = False
    before = model.get_weights()
    given = {"hidden": {"kernel": kernel, "bias": bias}}
    report = shrink(model, masks=given, constants="zero" if how == "zero" else "keep")
    assert report.model.get_layer("hidden").units == 4
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for name, mask in given["hidden"].items():
        variable = getattr(model.get_layer("hidden"), name)
        variable.assign(np.where(mask, ops.convert_to_numpy(variable), 0))
    x = np.random.default_rng(1).normal(100, 50, (4, 6)).astype("float32")
    small, masked = map(ops.convert_to_numpy, (report.model(x), model(x)))
    np.testing.assert_allclose(small, masked, rtol=1e-4, atol=1e-5)


NOT_WITH_TORCH = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="Keras with torch takes no attributes before super().__init__()",
)


class TrackedBackwards(keras.Model):
    """Layers are attributes before there is a graph, in another order than they run."""

    def __init__(self):
        self.head = layers.Dense(8, name="head")
        self.second = layers.Dense(8, activation="relu", name="second")
        self.first = layers.Dense(8, activation="relu", name="first")
        x = keras.Input((8,))
        super().__init__(x, self.head(self.second(self.first(x))))


@NOT_WITH_TORCH
def test_layers_that_are_tracked_in_another_order_keep_their_weights_and_masks():
    model = TrackedBackwards()
    _, masks = L1NormPruner(model, [{"sparsity": 0.25, "op_names": ["first"]}]).compress()
    report = shrink(model)
    assert {c.name: c.after for c in report.changes} == {
        "first/kernel": (8, 6),
        "first/bias": (6,),
        "second/kernel": (6, 8),
    }
    kept = masks["first"]["bias"]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(report.model.get_layer("first").kernel),
        ops.convert_to_numpy(model.first.kernel)[:, kept],
    )
    np.testing.assert_array_equal(
        ops.convert_to_numpy(report.model.get_layer("head").kernel),
        ops.convert_to_numpy(model.head.kernel),
    )


@NOT_WITH_TORCH
def test_masks_of_single_weights_stay_with_their_layer():
    model = TrackedBackwards()
    L1NormPruner(model, [{"sparsity": 0.25, "op_names": ["first"]}]).compress()
    mask = np.ones((8, 8), bool)
    mask[0, 0] = False
    model.head.kernel.assign(np.where(mask, ops.convert_to_numpy(model.head.kernel), 0))
    small = shrink(model, masks={"head": {"kernel": mask}}).model
    assert [*masks_of(small)] == ["head"]


def test_a_model_is_trained_on_from_where_it_stands():
    x = layers.Input((6,))
    model = keras.Model(x, two_dense(x))
    model.compile(keras.optimizers.Adam(0.02), "mse")
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 6)), rng.normal(size=(64, 3))
    model.fit(*data, verbose=0)
    pruner = L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["hidden"]}])
    pruner.compress()
    kept = masks_of(model)["hidden"]["bias"]
    model.fit(*data, verbose=0)
    small = shrink(model).model
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations) == 4
    by_path = {v.path.rpartition("functional/")[2]: v for v in small.optimizer.variables}
    for variable in model.optimizer.variables:
        if variable.path.endswith("hidden_kernel_velocity"):
            old = ops.convert_to_numpy(variable)
    new = next(v for path, v in by_path.items() if path.endswith("hidden_kernel_velocity"))
    np.testing.assert_array_equal(ops.convert_to_numpy(new), old[:, kept])
    assert old.any()
    # The next steps of both are the same, up to what is masked.
    model.fit(*data, verbose=0, shuffle=False)
    small.fit(*data, verbose=0, shuffle=False)
    apply_masks(model)
    np.testing.assert_allclose(
        ops.convert_to_numpy(small.get_layer("hidden").kernel),
        ops.convert_to_numpy(model.get_layer("hidden").kernel)[:, kept],
        atol=1e-5,
    )


def test_a_schedule_goes_on_with_the_small_model():
    x = layers.Input((6,))
    model = keras.Model(x, two_dense(x))
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9), "mse")
    data = np.ones((64, 6)), np.ones((64, 3))
    L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["hidden"]}]).compress()
    model.fit(*data, verbose=0)
    small = shrink(model).model
    again = L1NormPruner(small, [{"sparsity": 0.5, "op_names": ["hidden"]}])
    small.fit(*data, verbose=0, callbacks=[PruningSchedule(again, end_step=4, start_step=2)])
    assert again.sparsity() == {"hidden": 0.5}


@pytest.mark.parametrize(
    "policy",
    [
        "mixed_float16",
        "mixed_bfloat16",
        pytest.param(
            "float64",
            marks=pytest.mark.skipif(
                keras.backend.backend() == "jax",
                reason="JAX computes in float64 only where a whole process is told to",
            ),
        ),
    ],
)
def test_the_tolerance_is_that_of_the_type(policy):
    keras.config.set_dtype_policy(policy)
    try:
        x = y = layers.Input((8, 8, 3))
        for _ in range(6):
            y = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same")(y))
            y = layers.ReLU()(y)
        model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.beta.assign(ops.linspace(-0.5, 1.0, 32))
        prune(model, sparsity=0.5)
        assert shrink(model, constants="zero").difference is not None
    finally:
        keras.config.set_dtype_policy("float32")


def squared(x):
    return ops.relu(x) ** 2 + 0.5


def over_channels(x):
    return x / (1 + ops.max(x, axis=-1, keepdims=True))


def of_their_number(x):
    return x / x.shape[-1]


@pytest.mark.parametrize("where", ["argument", "layer"])
def test_an_own_activation_is_followed_and_copied(where):
    x = layers.Input((6,))
    y = layers.Dense(8, activation=squared if where == "argument" else None, name="first")(x)
    y = y if where == "argument" else layers.Activation(squared)(y)
    model = keras.Model(x, two_dense(y))
    prune(model, sparsity=0.5)
    report = shrink(model)
    assert report.model.get_layer("first").units == report.model.get_layer("hidden").units == 4


@pytest.mark.parametrize("function", [over_channels, of_their_number])
def test_an_own_activation_that_depends_on_other_channels_keeps_them(function):
    x = layers.Input((6,))
    model = keras.Model(x, two_dense(layers.Dense(8, activation=function, name="first")(x)))
    with pytest.warns(PruneWarning, match="'first' stays dense: its activation may mix channels"):
        prune(model, sparsity=0.5)
    report = shrink(model)
    assert report.model.get_layer("first").units == 8
    assert report.model.get_layer("hidden").units == 4


def test_an_array_beside_channels_is_taken_for_what_it_is():
    x = layers.Input((6,), batch_size=2)
    y = ops.concatenate([np.full((2, 3), 2.0, "float32"), layers.Dense(8, name="first")(x)], -1)
    model = keras.Model(x, two_dense(y))
    prune(model, sparsity=0.5)
    report = shrink(model)
    assert report.model.get_layer("first").units == 4
    assert report.model.get_layer("hidden").kernel.shape == (7, 4)


@keras.saving.register_keras_serializable(package="tests")
class Positions(layers.Layer):
    """A table that is shorter than what might be made up."""

    def build(self, shape):
        self.table = self.add_weight(shape=(16, shape[-1]), name="table")

    def call(self, x):
        return x + ops.take(self.table, ops.arange(ops.shape(x)[1]), 0)

    def compute_output_shape(self, shape):
        return shape


def test_sizes_that_are_open_are_made_up_to_fit():
    x = layers.Input((None,), dtype="int32")
    y = layers.GlobalAveragePooling1D()(Positions()(layers.Embedding(20, 8)(x)))
    model = keras.Model(x, two_dense(y))
    model.get_layer("hidden").bias.assign(np.ones(8))  # so that none of them is always negative
    prune(model, sparsity=0.5)
    assert shrink(model).model.get_layer("hidden").units == 4


def test_a_pruner_of_default_types_passes_wrappers():
    x = layers.Input((6,))
    y = layers.SpectralNormalization(layers.Dense(8), name="spectral")(x)
    model = keras.Model(x, two_dense(y))
    L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["default"]}]).compress()
    with pytest.warns(PruneWarning, match="'spectral', which holds it, is a SpectralNorm"):
        _, masks = prune(model, sparsity=0.5)
    assert not masks["hidden"]["kernel"].all()


def test_nothing_that_can_go_is_an_error_with_reasons_and_leaves_the_model_alone():
    x = layers.Input((8, 8, 3))
    y = layers.LayerNormalization(name="groups")(layers.Conv2D(8, 3, name="conv")(x))
    model = keras.Model(x, layers.Dense(2, name="head")(layers.Flatten()(y)), name="net")
    with pytest.raises(ConfigError) as error:
        prune(model, sparsity=0.5)
    assert "'conv' stays dense: it takes a mean over them (LayerNormalization in groups" in str(
        error.value
    )
    assert "'head' stays dense: the model returns it" in str(error.value)
    assert masks_of(model) == {}


def test_less_than_a_channel_is_an_error():
    x = layers.Input((6,))
    model = keras.Model(x, two_dense(x))
    with pytest.raises(ConfigError, match=r"sparsity=0.01 is less than one channel"):
        prune(model, sparsity=0.01)
    assert masks_of(model) == {}


def test_a_rule_for_a_class_of_ones_own():
    class Half(layers.Layer):
        def call(self, x):
            return x / 2

        def compute_output_shape(self, shape):
            return shape

    x = layers.Input((6,))
    model = keras.Model(x, two_dense(Half(name="half")(layers.Dense(8, name="first")(x))))

    @rule(Half)
    def half(flow, call):
        return flow.get(call.args[0])

    try:
        prune(model, sparsity=0.5)
        assert shrink(model).model.get_layer("first").units == 4
    finally:
        del RULES[Half]


def test_what_a_rule_says_nothing_of_stays():
    class Mixed(layers.Layer):
        def build(self, shape):
            self.mix = self.add_weight(shape=(4, 5), name="mix")

        def call(self, x):
            return x * ops.sum(self.mix)

        def compute_output_shape(self, shape):
            return shape

    x = layers.Input((6,))
    model = keras.Model(x, two_dense(Mixed(name="mixed")(layers.Dense(8, name="first")(x))))

    @rule(Mixed)
    def mixed(flow, call):
        return flow.get(call.args[0])

    try:
        found = units(model)
    finally:
        del RULES[Mixed]
    assert [group.name for group in found.groups] == ["first/kernel[1]", "hidden/kernel[1]"]
    assert found.why_fixed("mixed/mix", 1) == "its rule says nothing of this axis"


@pytest.mark.parametrize("size", [8, None])
def test_a_constant_at_borders_is_a_number_where_there_is_one_size(size):
    """A ReLU makes zeros of what is negative everywhere, in the middle and at the borders alike."""
    x = layers.Input((size, size, 3))
    y = layers.Conv2D(8, 3, name="first")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="each")(y)
    y = layers.Conv2D(4, 3, padding="same", name="second")(y)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    model.get_layer("first").bias.assign(np.ones(8))
    kernel = model.get_layer("each").kernel
    kernel.assign(-np.abs(ops.convert_to_numpy(kernel)))
    mask = np.ones((3, 3, 3, 8), bool)
    mask[..., :4] = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Nothing was removed")
        report = shrink(model, masks={"first": {"kernel": mask}}, constants="keep")
    assert report.model.get_layer("first").filters == (4 if size else 8)


@pytest.fixture
def padded():
    """A masked channel leaves a constant; one convolution lets it move, the other does not."""
    x = layers.Input((8, 8, 3))
    y = layers.Conv2D(8, 3, activation="relu", name="first")(x)
    y = layers.Conv2D(4, 1, name="pointwise")(y)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    model.get_layer("first").bias.assign(np.linspace(0.5, 1.0, 8))
    mask = np.ones((3, 3, 3, 8), bool)
    mask[..., :4] = False
    set_masks(model, {"first": {"kernel": mask}})
    return model


def test_constants_mean_what_they_mean_for_torch(padded):
    exact = shrink(padded)
    assert exact.model.get_layer("first").filters == 4
    with pytest.warns(PruneWarning, match="4 masked channels leave a constant"):
        assert shrink(padded, constants="keep").model is padded


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, masks: set_masks(masks, m), "masks is a Sequential|masks is a Functional"),
        (lambda m, masks: masks_of(3), "model is 3; it must be a Keras 3 model"),
        (lambda m, masks: apply_masks("x"), "model is 'x'; it must be"),
        (lambda m, masks: unwrap("x"), "model is 'x'; it must be"),
        (lambda m, masks: shrink(m, tolerance="1"), "tolerance is '1'; it must be a number"),
        (lambda m, masks: gzipped_size("/not/there"), "no file or folder '/not/there'"),
        (
            lambda m, masks: PruningSchedule(LevelPruner(m, ALL), end_step="10"),
            "end_step is '10'; it must be a whole number",
        ),
        (
            lambda m, masks: prune(m, "apoz", sparsity=0.5, data=np.ones((4, 3))),
            r"cannot be run on data of the shape \(4, 3\); it takes \(None, 8, 8, 3\)",
        ),
    ],
)
def test_mistakes_are_named(padded, call, message):
    with pytest.raises(PruneError, match=message):
        call(padded, masks_of(padded))


def test_a_recurrent_layer_says_where_its_weights_are():
    x = layers.Input((5, 6))
    model = keras.Model(x, layers.Dense(3)(layers.LSTM(4, name="lstm")(x)))
    with pytest.raises(ConfigError, match="'lstm' keeps its weights in lstm/lstm_cell"):
        LevelPruner(model, [{"sparsity": 0.5, "op_names": ["lstm"]}])

"""Weights that a layer's own Python computes with: experts, sinks of attention, biases."""

import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import prune_tf
from prune_core import ConfigError
from prune_tf import L1NormPruner, shrink, units

WIDTH, HIDDEN, EXPERTS = 6, 8, 3
registered = keras.saving.register_keras_serializable(package="own_weights")


@registered
class Experts(layers.Layer):
    """All experts as one weight for each step; gate and value lie side by side, or in turns."""

    def __init__(self, form="apart", **kwargs):
        super().__init__(**kwargs)
        self.form = form

    def build(self, shape):
        def weight(name, *size):
            return self.add_weight(shape=size, initializer="glorot_uniform", name=name)

        if self.form == "apart":
            self.gate = weight("gate", EXPERTS, WIDTH, HIDDEN)
            self.up = weight("up", EXPERTS, WIDTH, HIDDEN)
        else:
            self.both = weight("both", EXPERTS, WIDTH, 2 * HIDDEN)
            self.offset = weight("offset", EXPERTS, 2 * HIDDEN)
        self.down = weight("down", EXPERTS, HIDDEN, WIDTH)

    def call(self, x):
        if self.form == "apart":
            gate, up = (ops.einsum("bh,ehm->ebm", x, w) for w in (self.gate, self.up))
        else:
            both = ops.einsum("bh,ehm->ebm", x, self.both) + self.offset[:, None, :]
            in_turns = both[..., ::2], both[..., 1::2]
            gate, up = in_turns if self.form == "in turns" else ops.split(both, 2, axis=-1)
        return ops.einsum("ebm,emh->ebh", ops.silu(gate) * up, self.down)

    def get_config(self):
        return super().get_config() | {"form": self.form}


@registered
class Mixture(layers.Layer):
    """A router that chooses two experts for each sample."""

    def __init__(self, form="apart", **kwargs):
        super().__init__(**kwargs)
        self.form = form
        self.router = layers.Dense(EXPERTS, name="router")
        self.experts = Experts(form, name="experts")

    def build(self, shape):
        self.router.build(shape)
        self.experts.build(shape)

    def call(self, x):
        best, which = ops.top_k(ops.softmax(self.router(x)), k=2)
        shares = ops.sum(ops.one_hot(which, EXPERTS) * best[..., None], axis=1)
        return ops.sum(self.experts(x) * ops.transpose(shares)[:, :, None], axis=0)

    def get_config(self):
        return super().get_config() | {"form": self.form}


@registered
class Attention(layers.Layer):
    """Two positions look at each other, head by head; `form` says what else heads meet."""

    def __init__(self, form="sinks", heads=4, size=4, **kwargs):
        super().__init__(**kwargs)
        self.form, self.heads, self.size = form, heads, size
        for name in ("query", "key", "value"):
            kernel = layers.EinsumDense(
                "bsw,whd->bshd", (None, heads, size), bias_axes="hd", name=name
            )
            setattr(self, name, kernel)
        self.out = layers.Dense(WIDTH, name="out")

    def build(self, shape):
        for each in (self.query, self.key, self.value):
            each.build(shape)
        self.out.build((*shape[:-1], self.heads * self.size))
        if self.form == "sinks":
            self.sinks = self.add_weight(shape=(self.heads,), initializer="normal", name="sinks")
        if self.form == "table":
            self.table = self.add_weight(shape=(3, self.heads), initializer="normal", name="table")

    def call(self, x):
        query, key, value = self.query(x), self.key(x), self.value(x)
        scores = ops.einsum("bqhd,bkhd->bhqk", query, key)
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        if self.form == "slopes":
            scores = scores + ops.reshape(ops.arange(4, dtype="float32"), (1, 4, 1, 1))
        if self.form == "table":
            places = np.array([[1, 2], [0, 1]])
            scores = scores + ops.transpose(ops.take(self.table, places, axis=0), (2, 0, 1))
        if self.form == "sinks":
            sinks = ops.reshape(self.sinks, (1, self.heads, 1, 1))
            sinks = ops.broadcast_to(sinks, (batch, self.heads, length, 1))
            scores = ops.concatenate([scores, sinks], axis=-1)
        if self.form == "copies":
            mask = ops.broadcast_to(ops.expand_dims(x[..., :2] > 0, 1), ops.shape(scores))
            scores = ops.where(mask, scores, -1.0)
        shares = ops.softmax(scores)[..., :2]
        mixed = ops.einsum("bhqk,bkhd->bqhd", shares, value)
        return self.out(ops.reshape(mixed, (batch, length, self.heads * self.size)))

    def get_config(self):
        return super().get_config() | {"form": self.form, "heads": self.heads, "size": self.size}


def model_of(layer, shape):
    x = layers.Input(shape)
    model = keras.Model(x, layers.Dense(2, name="head")(layers.Flatten()(x + layer(x))))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=tuple(weight.shape)) * 0.5)
    return model


def outputs(model, seed=1):
    x = np.random.default_rng(seed).normal(size=(5, *model.input_shape[1:])).astype("float32")
    return ops.convert_to_numpy(model(x, training=False))


def halved(model, tmp_path, **how):
    """Half of a model, which computes what the masked one does, also from a file."""
    before = outputs(model)
    prune_tf.prune(model, "l1", sparsity=0.5, **how)
    masked = outputs(model)
    assert np.abs(masked - before).max() > 1e-3
    small = shrink(model).model
    np.testing.assert_allclose(outputs(small), masked, rtol=1e-5, atol=1e-6)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(small))
    return small


@pytest.mark.parametrize("form", ["apart", "in turns", "side by side"])
def test_experts_that_are_one_weight_lose_hidden_units(form, tmp_path):
    model = model_of(Mixture(form, name="mixture"), (WIDTH,))
    small = halved(model, tmp_path, exclude="mixture/router")
    experts = small.get_layer("mixture").experts
    assert experts.down.shape == (EXPERTS, HIDDEN // 2, WIDTH)
    if form == "apart":
        assert experts.gate.shape == experts.up.shape == (EXPERTS, WIDTH, HIDDEN // 2)
    else:
        assert experts.both.shape == (EXPERTS, WIDTH, HIDDEN)
        assert experts.offset.shape == (EXPERTS, HIDDEN)
    assert small.get_layer("mixture").router.units == EXPERTS


def test_the_smallest_units_of_experts_go_by_all_that_brings_them_in():
    model = model_of(Mixture(name="mixture"), (WIDTH,))
    experts = model.get_layer("mixture").experts
    strong = np.array([1, 0, 1, 0, 0, 1, 1, 0])
    experts.gate.assign(np.broadcast_to(strong + 0.1, experts.gate.shape))
    experts.up.assign(np.broadcast_to(np.ones(HIDDEN), experts.up.shape))
    masks = prune_tf.prune(model, "l1", sparsity=0.5, exclude="mixture/router")[1]
    kept = np.broadcast_to(strong.astype(bool), experts.up.shape)
    np.testing.assert_array_equal(masks["mixture/experts"]["gate"], kept)
    np.testing.assert_array_equal(masks["mixture/experts"]["up"], kept)


@pytest.mark.parametrize(
    "how",
    [
        {"exclude": "mixture/experts"},
        {"exclude": "Experts"},
        {"targets": ["Dense"]},
    ],
)
def test_experts_that_are_not_wanted_stay(how):
    x = layers.Input((WIDTH,))
    hidden = layers.Dense(4, name="hidden")(Mixture(name="mixture")(x))
    model = keras.Model(x, layers.Dense(2)(hidden))
    with pytest.warns(UserWarning, match="keep all channels"):
        prune_tf.prune(model, "l1", sparsity=0.5, **how)
    small = shrink(model).model
    assert small.get_layer("hidden").units == 2
    assert small.get_layer("mixture").experts.gate.shape == (EXPERTS, WIDTH, HIDDEN)


def test_experts_of_which_one_weight_is_not_wanted_stay():
    model = model_of(Mixture(name="mixture"), (WIDTH,))
    exclude = ["mixture/router", "mixture/experts/up"]
    with (
        pytest.warns(UserWarning, match="'mixture/experts' is left dense"),
        pytest.raises(ConfigError, match="belongs together with 'mixture/experts/up'"),
    ):
        prune_tf.prune(model, "l1", sparsity=0.5, exclude=exclude)


def test_what_scores_outputs_leaves_experts_alone():
    x = layers.Input((WIDTH,))
    hidden = layers.Dense(4, name="hidden", activation="relu")(Mixture(name="mixture")(x))
    model = keras.Model(x, layers.Dense(2)(hidden))
    data = np.ones((4, WIDTH), "float32")
    with pytest.warns(UserWarning, match="keep all channels"):
        prune_tf.prune(model, "mean_activation", sparsity=0.5, data=data)
    small = shrink(model).model
    assert small.get_layer("hidden").units == 2
    assert small.get_layer("mixture").experts.gate.shape == (EXPERTS, WIDTH, HIDDEN)


@pytest.mark.parametrize("form", ["sinks", "table", "copies"])
def test_heads_go_with_the_weights_that_they_meet(form, tmp_path):
    model = model_of(Attention(form, name="attention"), (2, WIDTH))
    small = halved(model, tmp_path, exclude="attention/out")
    attention = small.get_layer("attention")
    assert attention.query.kernel.shape == attention.value.kernel.shape == (WIDTH, 2, 4)
    assert (attention.heads, attention.out.kernel.shape) == (2, (8, WIDTH))
    if form != "copies":
        assert getattr(attention, form).shape[-1] == 2


def test_where_heads_stay_the_inside_of_each_gets_smaller(tmp_path):
    model = model_of(Attention("slopes", name="attention"), (2, WIDTH))
    why = units(model).why_fixed("attention/query/kernel", 1)
    assert "tied to something that stays" in why
    small = halved(model, tmp_path, exclude="attention/out")
    attention = small.get_layer("attention")
    assert attention.query.kernel.shape == attention.key.kernel.shape == (WIDTH, 4, 2)
    assert attention.query.bias.shape == (4, 2)


@registered
class Pairs(layers.Layer):
    """Says of what it returns that it has no third axis."""

    def call(self, x):
        return x[:, :, None] * x[:, None, :]

    def compute_output_shape(self, shape):
        return shape


@registered
class AfterPairs(layers.Layer):
    """Works with the third axis all the same."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.up, self.down = layers.Dense(8), layers.Dense(3, name="down")

    def build(self, shape):
        self.up.build((None, None, WIDTH))
        self.down.build((None, None, 8))

    def call(self, pairs):
        return ops.sum(self.down(self.up(pairs)), axis=1)

    def compute_output_shape(self, shape):
        return (shape[0], 3)


def test_a_layer_that_says_a_wrong_shape_is_followed_by_the_true_one():
    x = layers.Input((WIDTH,))
    y = AfterPairs(name="after")(Pairs()(x))
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    prune_tf.prune(model, "l1", sparsity=0.5, exclude="after/down")
    masked, small = outputs(model), shrink(model).model
    np.testing.assert_allclose(outputs(small), masked, rtol=1e-5, atol=1e-6)
    assert small.get_layer("after").up.units == 4


@pytest.mark.tensorflow("tf.gather is TensorFlow's")
@pytest.mark.parametrize("where", ["along", "rows"])
def test_a_function_of_tensorflow_is_followed_where_keras_has_the_same(where):
    class Picking(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.up, self.down = layers.Dense(8), layers.Dense(3)

        def build(self, shape):
            self.up.build(shape)
            self.down.build((*shape[:-1], 8))

        def call(self, x):
            tf = sys.modules["tensorflow"]
            y = self.up(x)
            if where == "rows":
                y = tf.gather(y, [1, 0], axis=1)
            else:
                y = ops.swapaxes(y, 1, 2)
                places = ops.zeros((ops.shape(y)[0], 8, 1), "int32")
                y = ops.swapaxes(tf.gather(y, places[:, :1] + y_int(y), batch_dims=2), 1, 2)
            return self.down(y)

    def y_int(y):
        return ops.cast(y[..., :1] > 0, "int32")

    model = model_of_pick(Picking(name="picking"))
    gather = sys.modules["tensorflow"].gather
    prune_tf.prune(model, "l1", sparsity=0.5)
    masked, small = outputs(model), shrink(model).model
    np.testing.assert_allclose(outputs(small), masked, rtol=1e-5, atol=1e-6)
    assert small.get_layer("picking").up.units == 4
    assert sys.modules["tensorflow"].gather is gather


def model_of_pick(layer):
    x = layers.Input((2, WIDTH))
    return keras.Model(x, layers.Dense(2, name="head")(layers.Flatten()(layer(x))))


def test_a_layers_own_weight_is_named_as_any_other():
    model = model_of(Mixture(name="mixture"), (WIDTH,))
    rules = [{"sparsity": 0.25, "op_types": ["Experts"]}]
    pruner = L1NormPruner(model, rules, mode="dependency_aware")
    assert [(each.name, each.axis, each.bias) for each in pruner.targets] == [
        ("mixture/experts", 2, None),
        ("mixture/experts/up", 2, None),
    ]
    pruner.compress()
    assert shrink(model).model.get_layer("mixture").experts.up.shape == (EXPERTS, WIDTH, 6)

"""Sizes that Python makes of others: heads of `channels // heads`, results as wide as the input."""

import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import prune_tf
from prune_core import ConfigError, PruneWarning
from prune_tf import shrink

WIDTH = 8
registered = keras.saving.register_keras_serializable(package="reshapes")


@registered
class Weighted(layers.Layer):
    """Reshapes on its own account, inside of an attention."""

    def call(self, x):
        batch, length, channels = ops.shape(x)
        return ops.reshape(ops.reshape(x, (batch, length * channels)), (batch, length, channels))


@registered
class Attention(layers.Layer):
    """Attention of which no attribute says how wide heads are, or all of them together."""

    def __init__(self, form="by hand", heads=2, **kwargs):
        super().__init__(**kwargs)
        self.form, self.heads = form, heads
        self.weighted = Weighted()
        for name in ("query", "key", "value", "out"):
            setattr(self, name, layers.Dense(WIDTH, name=name))

    def build(self, shape):
        for each in (self.query, self.key, self.value, self.out):
            each.build(shape)

    def call(self, x):
        batch, length, channels = ops.shape(x)
        shape = (batch, length, self.heads, channels // self.heads)
        x = self.weighted(x)
        query, key, value = (
            ops.transpose(ops.reshape(each(x), shape), (0, 2, 1, 3))
            for each in (self.query, self.key, self.value)
        )
        if self.form == "samples":
            folded = (batch * self.heads, length, channels // self.heads)
            query, key, value = (ops.reshape(each, folded) for each in (query, key, value))
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) * 0.5
        mixed = ops.matmul(ops.softmax(scores), value)
        if self.form == "samples":
            mixed = ops.reshape(mixed, (batch, self.heads, length, channels // self.heads))
        mixed = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (batch, length, channels))
        return self.out(mixed)

    def get_config(self):
        return super().get_config() | {"form": self.form, "heads": self.heads}


def model_of(*blocks, length=None):
    x = y = layers.Input((length, WIDTH))
    for block in blocks:
        y = layers.LayerNormalization()(y + block(y))
    model = keras.Model(x, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(y)))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=tuple(weight.shape)) * 0.5)
    return model


def outputs(model, batch=3, length=5):
    x = np.random.default_rng(1).normal(size=(batch, length, WIDTH)).astype("float32")
    return ops.convert_to_numpy(model(x, training=False))


def halved(model, **how):
    prune_tf.prune(model, "l1", sparsity=0.5, exclude=["attention/out"], **how)
    return shrink(model).model


def assert_same(model, small):
    for batch, length in ((1, 5), (4, 9), (3, 2)):
        expected, found = (outputs(each, batch, length) for each in (model, small))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["by hand", "samples"])
@pytest.mark.parametrize(("heads", "kept"), [(4, 4), (2, 4), (1, 4)])
def test_what_is_as_wide_as_the_input_loses_heads(form, heads, kept):
    model = model_of(Attention(form, heads, name="attention"))
    small = halved(model)
    attention = small.get_layer("attention")
    assert attention.query.kernel.shape == attention.value.kernel.shape == (WIDTH, kept)
    assert attention.out.kernel.shape == (kept, WIDTH)
    assert attention.heads == heads
    assert_same(model, small)
    np.testing.assert_allclose(small.predict(np.ones((2, 5, WIDTH)), verbose=0).shape, (2, 3))


def test_the_small_model_is_the_same_from_its_file_in_another_process(tmp_path):
    small = halved(model_of(Attention(name="attention")))
    small.save(tmp_path / "small.keras")
    np.save(tmp_path / "expected.npy", outputs(small))
    here = Path(__file__).parent
    code = f"""
import sys; sys.path.insert(0, {str(here)!r})
import keras, numpy as np, prune_tf, test_tf_reshapes as t
t.Attention.__module__  # its classes are registered by now
model = keras.models.load_model({str(tmp_path / "small.keras")!r})
np.testing.assert_array_equal(t.outputs(model), np.load({str(tmp_path / "expected.npy")!r}))
assert keras.ops.reshape is t.prune_tf.speedup.reshapes._original
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_small_model_trains_and_is_copied():
    small = halved(model_of(Attention(name="attention")))
    copy = keras.models.clone_model(small)
    copy.set_weights(small.get_weights())
    assert_same(small, copy)
    small.compile("sgd", "mse")
    before = outputs(small)
    small.fit(np.ones((4, 5, WIDTH)), np.ones((4, 3)), verbose=0)
    assert np.abs(outputs(small) - before).max() > 0
    # What was told its share is not told again, and its feed-forward part could still go.
    prune_tf.unwrap(small)
    with pytest.warns(PruneWarning):
        again = shrink(small)
    assert_same(small, again.model)


def test_others_reshape_as_ever_meanwhile():
    small = halved(model_of(Attention(name="attention")))
    wrong: list[object] = []
    running = threading.Event()
    running.set()

    def reshape_all_the_time():
        while running.is_set():
            if ops.reshape(np.ones((2, 6)), (2, 3, 2)).shape != (2, 3, 2):
                wrong.append(1)

    other = threading.Thread(target=reshape_all_the_time)
    other.start()
    for _ in range(20):
        outputs(small)
    running.clear()
    other.join()
    assert not wrong
    assert ops.reshape.__module__.startswith("keras.")


def test_a_layer_that_runs_twice_keeps_its_heads():
    attention = Attention(name="attention")
    model = model_of(attention, attention)
    with pytest.raises(ConfigError, match="has their number written down"):
        prune_tf.prune(model, "l1", sparsity=0.5)


@registered
class Grouped(layers.Layer):
    """Some numbers follow by themselves, as those that Python reads of a tensor without heads."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.query = layers.EinsumDense("bsw,whd->bshd", (None, 4, 2), name="query")
        self.key = layers.EinsumDense("bsw,whd->bshd", (None, 4, 2), name="key")
        self.out = layers.Dense(WIDTH, name="out")

    def build(self, shape):
        self.query.build(shape)
        self.key.build(shape)
        self.out.build(shape)

    def call(self, x):
        batch, length, channels = ops.shape(x)
        query, key = self.query(x), self.key(x)
        _, _, heads, size = ops.shape(query)
        query = ops.reshape(query, (batch, length, heads, 1, size))[:, :, :, 0]
        scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", query, key))
        mixed = ops.einsum("bhqk,bkhd->bqhd", scores, key)
        return self.out(ops.reshape(mixed, (batch, length, channels)))


def test_a_number_that_follows_by_itself_is_not_told():
    model = model_of(Grouped(name="attention"))
    small = halved(model)
    assert small.get_layer("attention").query.kernel.shape == (WIDTH, 2, 2)
    assert_same(model, small)

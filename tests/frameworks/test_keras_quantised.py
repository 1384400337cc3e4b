"""What prune-tf has made small is quantised by Keras like any other model."""

import warnings

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs TensorFlow")


def quantised(model):
    with warnings.catch_warnings():
        # Of each layer that Keras does not quantise, the input among them.
        warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
        model.quantize("int8")
    return model


@pytest.fixture
def model():
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((32,)),
            layers.Dense(64, activation="relu", name="first"),
            layers.Dense(64, activation="relu", name="second"),
            layers.Dense(4, name="head"),
        ]
    )


def test_a_small_model_is_quantised_and_kept(model, tmp_path):
    import keras

    from prune_tf import L1NormPruner, shrink

    x = np.random.default_rng(0).normal(size=(64, 32)).astype("float32")
    L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["first", "second"]}]).compress()
    small = shrink(model).model
    assert small.get_layer("second").kernel.shape == (32, 32)
    before = small.predict(x, verbose=0)
    after = quantised(small).predict(x, verbose=0)
    assert small.get_layer("second").kernel.dtype == "int8"
    apart = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert 0 < apart < 0.03
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), after, rtol=1e-5)


def test_zeros_stay_zeros(model):
    from prune_tf import LevelPruner, unwrap

    LevelPruner(model, [{"sparsity": 0.5, "op_names": ["second"]}]).compress()
    unwrap(model)
    zero = model.get_layer("second").kernel.numpy() == 0
    assert zero.mean() >= 0.5
    quantised(model)
    assert not np.asarray(model.get_layer("second").kernel)[zero].any()

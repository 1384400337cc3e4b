import os
import sys
from pathlib import Path

# The networks stand beside the tests that use them.
sys.path.insert(0, str(Path(__file__).parent))

# Before TensorFlow is imported: one quiet thread per test process.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import pytest

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")


def pytest_configure(config):
    if BACKEND == "tensorflow":
        _two_processors()
    config.addinivalue_line("markers", "tensorflow(why): what Keras does on TensorFlow only")
    # Keras 3.15 reads TensorFlow's variables in a way that numpy 2 wants changed; theirs to mend.
    config.addinivalue_line(
        "filterwarnings",
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    )


def pytest_collection_modifyitems(items):
    for item in items:
        marker = item.get_closest_marker("tensorflow")
        if BACKEND != "tensorflow" and marker:
            item.add_marker(pytest.mark.skip(reason=f"on TensorFlow only: {marker.args[0]}"))


def _two_processors():
    """Let MirroredStrategy have two devices; that must be said before TensorFlow starts."""
    import tensorflow as tf

    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(autouse=True)
def _seeded():
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)


@pytest.fixture
def cnn():
    """A small network with one layer of each kind that matters."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
            layers.SeparableConv2D(4, 3, name="separable"),
            layers.Flatten(name="flatten"),
            layers.Dense(4, name="head"),
        ],
        name="cnn",
    )


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 3)).astype("float32")
    return x, rng.integers(0, 4, size=64)


@pytest.fixture
def zeros_hold():
    """Assert that what is masked is zero, and that something is masked."""
    from prune_tf import masks_of
    from prune_tf.layers import layers_of

    def check(model):
        masks = masks_of(model)
        assert any(not mask.all() for tensors in masks.values() for mask in tensors.values())
        layers = {named.name: named.layer for named in layers_of(model)}
        for layer, tensors in masks.items():
            for name, mask in tensors.items():
                weight = np.asarray(getattr(layers[layer], name).numpy(), "float32")
                assert not weight[~mask].any(), f"{layer} {name} has grown back"
                assert np.isfinite(weight).all()

    return check

"""What tests of AutoCompress run: a small network, how it is trained and scored, and the call."""

import keras
import numpy as np
from keras import layers

from prune_tf import AutoCompressPruner
from prune_tf.arrays import array_of

RULES = [{"sparsity": 0.75, "op_names": ["a"]}]
X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 2)).astype("float32")

QUICK = {
    "total_iteration": 2,
    "cool_down_rate": 0.5,
    "admm_num_iterations": 2,
    "admm_training_epochs": 1,
}


def net(*, rate=0.0, loss="mse", eager=True):
    """Layers of 4 × 8, 8 × 8 and 8 × 2 weights; compiling a step takes longer than a few steps."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, name="a"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dropout(rate),
            layers.Dense(8, activation="relu", name="b"),
            layers.Dense(2, name="head"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), loss, run_eagerly=eager)
    model.optimizer.build(model.trainable_variables)
    return model


def train(model):
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)


def score(model):
    return -float(np.square(array_of(model(X)) - Y).mean())


def auto(model=None, rules=RULES, **options):
    options = {"finetune": train, "evaluate": score, **QUICK, **options}
    return AutoCompressPruner(net() if model is None else model, rules, **options)


def numbers(model):
    optimizer = [array_of(each).copy() for each in model.optimizer.variables]
    return [np.array(each) for each in model.get_weights()] + optimizer


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)

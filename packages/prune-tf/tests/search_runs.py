"""Searches of a model of two layers, of which it is known what each layer costs."""

import keras
import numpy as np
from keras import layers

from prune_tf import NetAdaptPruner, SensitivityPruner, SimulatedAnnealingPruner, masks_of
from prune_tf.arrays import array_of

RULES = [{"sparsity": 0.5, "op_names": ["a", "b"]}]
SEARCHES = {
    "netadapt": NetAdaptPruner,
    "sensitivity": SensitivityPruner,
    "simulated_annealing": SimulatedAnnealingPruner,
}


def two_layers():
    """Two layers of a hundred weights each."""
    return keras.Sequential(
        [
            layers.Input((10,)),
            layers.Dense(10, use_bias=False, name="a"),
            layers.Dense(10, use_bias=False, name="b"),
        ]
    )


def lost(model):
    return {name: 1 - float(each["kernel"].mean()) for name, each in masks_of(model).items()}


def costs(*prices):
    """Return an evaluation that loses so much for all of each layer."""

    def evaluate(model):
        return 1.0 - sum(p * c for p, c in zip(prices, lost(model).values(), strict=True))

    return evaluate


def weights_of(model):
    return [np.array(each) for each in model.get_weights()]


def assert_same(now, then):
    for first, second in zip(now, then, strict=True):
        np.testing.assert_array_equal(first, second)


def nudge(model):
    """Change every weight a little, at random."""
    for variable in model.weights:
        noise = np.random.normal(scale=0.05, size=variable.shape)
        variable.assign(array_of(variable) + noise)


QUICK = {
    "netadapt": {"sparsity_per_iteration": 0.25},
    "sensitivity": {"sparsity_per_iter": 0.25},
    "simulated_annealing": {"stop_temperature": 60.0},
}


def search_of(name, model, **options):
    return SEARCHES[name](
        model,
        RULES,
        **{"evaluate": costs(1.0, 0.25), "pruning_algorithm": "level"} | QUICK[name] | options,
    )

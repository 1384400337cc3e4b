"""Gradual pruners under torch's names, during training and in loops of one's own."""

import keras
import numpy as np
import pytest
from keras import layers

import prune_tf
from prune_core import ConfigError, PruneWarning, get_pruner
from prune_core.timetable import Timetable
from prune_tf import AGPPruner, GradualPruner, L1NormPruner, LinearPruner, masks_of


@pytest.fixture
def model():
    model = keras.Sequential(
        [layers.Input((8,)), layers.Dense(16, name="a"), layers.Dense(10, name="b")]
    )
    model.compile("sgd", "mse")
    return model


X, Y = np.ones((16, 8), "float32"), np.ones((16, 10), "float32")


class Watching(keras.callbacks.Callback):
    """Notes the sparsity of a layer at the end of each epoch."""

    def __init__(self, pruner, name):
        super().__init__()
        self.pruner, self.name, self.seen = pruner, name, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(round(self.pruner.sparsity()[self.name], 3))


@pytest.mark.parametrize("name", ["agp", "linear", "gradual"])
def test_the_names_are_those_of_torch(name):
    assert issubclass(get_pruner(name, framework="keras"), GradualPruner)


def test_each_entry_has_a_timetable_of_its_own(model):
    rules = [
        {"sparsity": 0.8, "op_names": ["a"], "end_epoch": 5},
        {"final_sparsity": 0.6, "initial_sparsity": 0.2, "op_names": ["b"], "end_epoch": 5}
        | {"start_epoch": 1, "frequency": 2},
    ]
    pruner = LinearPruner(model, rules, "level")
    pruner.compress()
    seen = Watching(pruner, "a"), Watching(pruner, "b")
    model.fit(X, Y, epochs=5, verbose=0, callbacks=[pruner.callback, *seen])
    np.testing.assert_allclose(seen[0].seen, [0.0, 0.2, 0.4, 0.6, 0.8], atol=0.01)
    growth = Timetable(0.2, 0.6, start=1, end=5, frequency=2)
    expected = [growth.sparsity(epoch, lambda p, i, f: i + (f - i) * p) for epoch in range(5)]
    np.testing.assert_allclose(seen[1].seen, expected, atol=0.01)


def test_steps_of_the_optimizer_count(model):
    rules = [{"sparsity": 0.5, "op_names": ["a"], "end_step": 5}]
    pruner = AGPPruner(model, rules, "l1", pruning_params={"mode": "normal"})
    assert isinstance(pruner.pruner, L1NormPruner)
    pruner.compress()
    assert pruner.sparsity() == {"a": 0.0}
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[pruner.callback])
    assert pruner.sparsity() == {"a": 0.5}
    assert not masks_of(model)["a"]["bias"].all()


def test_a_loop_of_ones_own_says_how_far_it_is(model):
    rules = [{"sparsity": 0.5, "op_names": ["b"], "end_step": 3}]
    pruner = GradualPruner(model, rules, curve="linear")
    pruner.compress()
    reached = []
    for _ in range(3):
        pruner.step()
        reached.append(pruner.sparsity()["b"])
    assert reached == [0.25, 0.5, 0.5]
    by_epochs = LinearPruner(model, [{"sparsity": 0.75, "op_names": ["b"], "end_epoch": 2}])
    by_epochs.update_epoch(1)
    assert by_epochs.sparsity() == {"b": 0.75}
    assert masks_of(by_epochs.unwrap()) == {}


def test_an_end_that_is_not_reached_is_told(model):
    pruner = LinearPruner(model, [{"sparsity": 0.5, "op_names": ["b"], "end_epoch": 5}])
    pruner.compress()
    with pytest.warns(PruneWarning, match="Training ended at epoch 1, before epoch 4"):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[pruner.callback])


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        ([{"sparsity": 0.5, "op_names": ["b"]}], {}, "does not say when its sparsity is reached"),
        (
            [{"sparsity": 0.5, "op_names": ["b"], "end_epoch": 2, "end_step": 9}],
            {},
            "counts both epochs and steps",
        ),
        (
            [{"sparsity": 0.5, "initial_sparsity": 0.6, "op_names": ["b"], "end_epoch": 2}],
            {},
            "sparsity only grows",
        ),
        (
            [{"sparsity": 0.5, "op_names": ["b"], "end_epoch": 2}],
            {"pruning_algorithm": "agp"},
            "must be a one-shot pruner",
        ),
        (
            [{"sparsity": 0.5, "op_names": ["b"], "end_epoch": 2}],
            {"optimizer": "sgd"},
            "optimizer is 'sgd'; it must be a Keras optimizer",
        ),
        (
            [{"sparsity": 0.5, "op_names": ["b"], "end_epoch": 2}],
            {"total_iteration": 3},
            "takes no 'total_iteration'",
        ),
        ([{"sparsity": 0.5, "op_names": ["b"], "end_epoch": 2}], {"curve": 3}, "curve is 3"),
    ],
)
def test_mistakes_are_named(model, rules, options, message):
    with pytest.raises(ConfigError, match=message):
        AGPPruner(model, rules, **options)
    assert masks_of(model) == {}


def test_another_model_is_refused(model):
    pruner = LinearPruner(model, [{"sparsity": 0.5, "op_names": ["b"], "end_epoch": 2}])
    other = keras.Sequential([layers.Input((8,)), layers.Dense(10)])
    other.compile("sgd", "mse")
    with pytest.raises(ConfigError, match="Make a pruner for that one"):
        other.fit(X, Y, verbose=0, callbacks=[pruner.callback])
    assert prune_tf.masks_of(other) == {}

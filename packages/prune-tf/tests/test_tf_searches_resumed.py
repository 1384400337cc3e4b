"""Searches of Keras models that are stopped, interrupted or killed, and go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from search_runs import SEARCHES, assert_same, costs, lost, nudge, search_of, two_layers, weights_of

import prune_tf
from prune_core import ConfigError, PruneError, PruneWarning
from prune_tf import NetAdaptPruner, masks_of


@pytest.fixture
def model():
    return two_layers()


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("trained", [False, True])
def test_a_search_that_stopped_goes_on(name, trained, tmp_path):
    """It evaluates nothing twice, and ends with the weights of one that was never stopped."""

    # Elsewhere the first fit of a model draws more than later ones, so that nothing is drawn here.
    on_tensorflow = keras.backend.backend() == "tensorflow"
    rate = 0.5 if on_tensorflow else 0.0

    def made():
        keras.utils.set_random_seed(0)
        net = keras.Sequential(
            [
                layers.Input((10,)),
                layers.Dense(10, use_bias=False, name="a"),
                layers.Dropout(rate),
                layers.Dense(10, use_bias=False, name="b"),
            ]
        )
        net.compile(keras.optimizers.Adam(0.01), "mse")
        return net

    x = np.random.default_rng(0).normal(size=(16, 10)).astype("float32")

    def finetune(model):
        model.fit(x, x, batch_size=4, shuffle=on_tensorflow, verbose=0)

    def run(model, stop=None, **options):
        calls = []

        def evaluate(model):
            if len(calls) == stop:
                raise SystemExit
            calls.append(costs(1.0, 0.25)(model))
            return calls[-1]

        pruner = search_of(
            name, model, evaluate=evaluate, finetune=finetune if trained else None, **options
        )
        try:
            pruner.compress()
        except SystemExit:
            assert stop is not None
        return pruner, len(calls)

    whole, number = run(made())
    stop = number - 1
    folder = {"experiment_data_dir": tmp_path / "search"}
    assert run(made(), stop, **folder)[1] == stop
    again, more = run(made(), **folder)
    assert more == number - stop
    assert again.history == whole.history
    assert again.best == whole.best
    assert_same(weights_of(again.bound_model), weights_of(whole.bound_model))
    # All is known by now, so that a third start evaluates nothing.
    third, none = run(made(), **folder)
    assert none == 0
    assert_same(weights_of(third.bound_model), weights_of(whole.bound_model))
    with pytest.raises(ConfigError, match="is of a search whose seed is 0; here it is 1"):
        run(made(), seed=1, **folder)


@pytest.mark.parametrize("name", ["netadapt", "simulated_annealing"])
def test_ctrl_c_ends_with_the_best_so_far(name, model):
    tuned, scores = [], []

    def finetune(model):
        nudge(model)
        tuned.append(weights_of(model))

    def evaluate(model):
        if len(scores) == 5:
            raise KeyboardInterrupt
        scores.append(costs(1.0, 0.25)(model))
        return scores[-1]

    # In steps of a tenth, so that NetAdapt has ended two rounds by then.
    options = {"sparsity_per_iteration": 0.1} if name == "netadapt" else {}
    pruner = search_of(name, model, evaluate=evaluate, finetune=finetune, **options)
    with pytest.warns(PruneWarning, match="was interrupted. The result is the best so far"):
        pruner.compress()
    # NetAdapt's first trial is of the dense model, which it does not train.
    first = 1 if name == "netadapt" else 0
    best = scores.index(pruner.best_score, first)
    assert best == (4 if name == "netadapt" else int(np.argmax(scores)))
    assert lost(model) == pytest.approx(pruner.best, abs=0.01)
    assert_same(
        weights_of(model),
        [
            weight * each["kernel"]
            for weight, each in zip(tuned[best - first], masks_of(model).values(), strict=True)
        ],
    )


def search_in(folder, evaluate):
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [layers.Input((4,)), layers.Dense(4, name="a"), layers.Dense(4, name="b")]
    )
    return NetAdaptPruner(
        net,
        [{"sparsity": 0.5, "op_types": ["Dense"]}],
        evaluate=evaluate,
        sparsity_per_iteration=0.25,
        experiment_data_dir=folder,
    )


def sum_of_weights(model):
    return float(np.abs(keras.ops.convert_to_numpy(model.get_layer("a").kernel)).sum())


KILLED = """
import os, signal, sys
from test_tf_searches_resumed import search_in, sum_of_weights

calls = []

def evaluate(model):
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(1)
    return sum_of_weights(model)

search_in(sys.argv[1], evaluate).compress()
"""


def test_a_search_that_was_killed_goes_on(tmp_path):
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "search")]
    killed = subprocess.run(command, env=here, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    calls = []
    search = search_in(tmp_path / "search", lambda m: (calls.append(1), sum_of_weights(m))[1])
    search.compress()
    assert len(search.history) - len(calls) == 3


def test_trials_that_got_lost_are_missed(model, tmp_path):
    before, kept = weights_of(model), {"checkpoint": tmp_path / "search.json", "finetune": nudge}
    search_of("netadapt", model, **kept).compress()
    prune_tf.unwrap(model)
    model.set_weights(before)
    (tmp_path / "search.json").unlink()
    with pytest.raises(PruneError, match="has weights of a later trial"):
        search_of("netadapt", model, **kept).compress()
    assert_same(weights_of(model), before)


def test_a_damaged_file_of_weights_is_named(model, tmp_path):
    trials = tmp_path / "search.json"
    (tmp_path / "search.json.weights").write_bytes(b"nothing")
    with pytest.raises(PruneError, match=r"search.json.weights cannot be read"):
        search_of("netadapt", model, finetune=nudge, checkpoint=trials).compress()
    assert not masks_of(model)

"""Lottery tickets: the sparsity of each round, and what goes back to where it began."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import prune_core
from prune_core import ConfigError
from prune_core.rounds import sparsity_after
from prune_tf import L1NormPruner, LotteryTicketPruner, masks_of, shrink

RULES = [{"sparsity": 0.75, "op_names": ["hidden"], "prune_iterations": 2}]


@pytest.fixture
def model():
    net = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(16, activation="relu", name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, name="head"),
        ]
    )
    net.compile(keras.optimizers.Adam(0.05), "mse")
    return net


@pytest.fixture
def train():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6)).astype("float32")
    y = x[:, :3] ** 2

    def run(model):
        model.fit(x, y, epochs=2, verbose=0)

    run.score = lambda model: -float(np.mean((ops.convert_to_numpy(model(x)) - y) ** 2))
    return run


def weights_of(model):
    return [np.array(each) for each in model.get_weights()]


def test_it_is_registered():
    found = prune_core.get_pruner("lottery_ticket", framework="keras")
    assert found is LotteryTicketPruner


def test_rounds_prune_what_survives_and_start_from_the_beginning(model, train):
    initial = weights_of(model)
    pruner = LotteryTicketPruner(model, RULES)
    seen = []
    for _ in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        kept = masks_of(model)["hidden"]["kernel"]
        expected = [np.array(each) for each in initial]
        expected[0] = expected[0] * kept
        bias = masks_of(model)["hidden"].get("bias", np.ones(16, bool))
        expected[1] = expected[1] * bias
        for now, then in zip(weights_of(model), expected, strict=True):
            np.testing.assert_array_equal(now, then)
        assert int(model.optimizer.iterations) == 0
        seen.append(1 - kept.mean())
        train(model)
        assert int(model.optimizer.iterations) == 2
        assert not np.allclose(weights_of(model)[4], initial[4])
    assert seen == [0.0, pytest.approx(sparsity_after(1, 2, 0.75), abs=0.01), 0.75]
    with pytest.raises(ConfigError, match="All 2 rounds have begun already"):
        pruner.prune_iteration_start()


def test_what_goes_is_what_training_made_small(model, train):
    """Not what was small at the beginning."""
    pruner = LotteryTicketPruner(model, RULES)
    pruner.prune_iteration_start()
    train(model)
    trained = np.abs(weights_of(model)[0])
    pruner.prune_iteration_start()
    kept = masks_of(model)["hidden"]["kernel"]
    assert trained[~kept].max() <= trained[kept].min()


def test_all_rounds_in_one_call(model, train, zeros_hold):
    pruner = LotteryTicketPruner(model, RULES, finetune=train, evaluate=train.score)
    compressed, masks = pruner.compress()
    assert compressed is model
    zeros_hold(model)
    assert [each["round"] for each in pruner.history] == [0, 1, 2]
    assert pruner.history[-1]["sparsity"] == 0.75
    assert pruner.history[-1]["score"] == pytest.approx(train.score(model))
    assert 1 - masks["hidden"]["kernel"].mean() == 0.75
    assert not masks_of(pruner.unwrap())


def test_without_resetting_training_goes_on(model, train):
    pruner = LotteryTicketPruner(model, RULES, reset_weights=False, finetune=train)
    pruner.compress()
    assert int(model.optimizer.iterations) == 6


def test_with_channels_the_ticket_becomes_a_small_model(model, train):
    pruner = LotteryTicketPruner(
        model, RULES, pruning_algorithm="l1", pruning_params={"mode": "normal"}, finetune=train
    )
    pruner.compress()
    assert isinstance(pruner.pruner, L1NormPruner)
    assert shrink(model).model.get_layer("hidden").units == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"config_list": [{"sparsity": 0.5, "op_types": ["Dense"]}]}, "how many rounds"),
        ({"total_iteration": 5}, "is 2|is 5"),
        ({"config_list": [{**RULES[0], "prune_iterations": 0}]}, "whole number of at least 1"),
        ({"pruning_algorithm": "agp"}, "must be a one-shot pruner of Keras"),
        ({"finetune": 3}, "finetune is 3"),
        ({"optimizer": "sgd"}, "takes no 'optimizer'"),
    ],
)
def test_mistakes_are_named(model, options, says):
    with pytest.raises(ConfigError, match=says):
        LotteryTicketPruner(model, **({"config_list": RULES} | options))
    assert not masks_of(model)


def test_it_is_no_callback(model):
    with pytest.raises(ConfigError, match="each of its rounds is a training of its own"):
        model.fit(np.ones((4, 6)), np.ones((4, 3)), callbacks=[LotteryTicketPruner(model, RULES)])

"""The search finds which layer can lose more, keeps to its budget, and leaves the model alone."""

import keras
import numpy as np
import pytest
from keras import layers

import prune_core
from prune_core import ConfigError, PruneError
from prune_tf import L1NormPruner, SimulatedAnnealingPruner, masks_of, shrink

RULES = [{"sparsity": 0.5, "op_names": ["vital", "idle"]}]


@pytest.fixture
def model():
    """Two layers of equal size, of which a score knows one."""
    return keras.Sequential(
        [
            layers.Input((12,)),
            layers.Dense(12, name="vital"),
            layers.Dense(12, name="idle"),
            layers.Dense(2, name="head"),
        ]
    )


def left_of(name):
    return lambda model: float(np.abs(model.get_layer(name).get_weights()[0]).sum())


def lost(masks):
    return {name: 1 - float(each["kernel"].mean()) for name, each in masks.items()}


def weights_of(model):
    return [np.array(each) for each in model.get_weights()]


def test_it_is_registered():
    found = prune_core.get_pruner("simulated_annealing", framework="keras")
    assert found is SimulatedAnnealingPruner


@pytest.mark.parametrize(
    ("mode", "spared", "other"), [("maximize", "vital", "idle"), ("minimize", "idle", "vital")]
)
def test_the_layer_that_matters_is_spared(model, mode, spared, other):
    pruner = SimulatedAnnealingPruner(model, RULES, left_of("vital"), mode)
    found, masks = pruner.compress()
    assert found is model
    scores = [each["score"] for each in pruner.history]
    best = max(scores) if mode == "maximize" else min(scores)
    assert len(scores) == 2 + 16
    assert left_of("vital")(model) == pytest.approx(best)
    shares = lost(masks)
    assert shares[spared] < 0.35 < 0.65 < shares[other]
    assert sum(shares.values()) / 2 == pytest.approx(0.5, abs=0.01)


def test_every_trial_keeps_to_the_budget_and_begins_with_the_dense_model(model, zeros_hold):
    before, seen = weights_of(model), []

    def evaluate(model):
        seen.append(lost(masks_of(model)))
        zeros_hold(model)
        for now, then in zip(weights_of(model), before, strict=True):
            assert ((now == then) | (now == 0)).all()
        return 1.0

    pruner = SimulatedAnnealingPruner(model, RULES, evaluate, seed=3)
    assert not masks_of(model)
    pruner.compress()
    for shares, trial in zip(seen, pruner.history, strict=True):
        assert sum(shares.values()) / 2 == pytest.approx(0.5, abs=0.01)
        assert shares == pytest.approx(trial["sparsities"], abs=0.01)
    assert len({tuple(each.values()) for each in seen}) > 5
    pruner.unwrap()


def test_the_same_seed_tries_the_same(model):
    tried = []
    for seed in (1, 1, 2):
        pruner = SimulatedAnnealingPruner(model, RULES, left_of("idle"), seed=seed)
        before = weights_of(model)
        pruner.compress()
        pruner.unwrap()
        model.set_weights(before)
        tried.append([each["sparsities"] for each in pruner.history])
    assert tried[0] == tried[1] != tried[2]


def test_whole_channels(model):
    pruner = SimulatedAnnealingPruner(
        model, RULES, left_of("vital"), pruning_algorithm="l1", stop_temperature=60
    )
    _, masks = pruner.compress()
    report = shrink(model)
    assert report.model.get_layer("idle").units == masks["idle"]["bias"].sum() < 6


def test_a_model_survives_an_evaluation_that_fails(model):
    before = weights_of(model)

    def evaluate(model):
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        SimulatedAnnealingPruner(model, RULES, evaluate).compress()
    assert not masks_of(model)
    for now, then in zip(weights_of(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"evaluate": 0.5}, "evaluate is 0.5; it must be a function"),
        ({"optimize_mode": "max"}, "'maximize' or 'minimize'"),
        ({"start_temperature": 10.0}, "the temperature falls"),
        ({"tries": 0}, "tries is 0"),
        ({"pruning_params": {"mode": "global"}}, "to be 'normal' or 'dependency_aware'"),
        ({"pruning_algorithm": "agp"}, "must be a one-shot pruner"),
    ],
)
def test_mistakes_are_named(model, options, says):
    arguments = {"evaluate": left_of("vital"), "pruning_algorithm": "l1"} | options
    with pytest.raises(ConfigError, match=says):
        SimulatedAnnealingPruner(model, RULES, **arguments)
    assert not masks_of(model)


def test_a_score_that_is_no_number_and_a_model_that_is_masked(model):
    with pytest.raises(PruneError, match="evaluate returned nan"):
        SimulatedAnnealingPruner(model, RULES, lambda model: float("nan")).compress()
    L1NormPruner(model, RULES).compress()
    with pytest.raises(ConfigError, match="masked already"):
        SimulatedAnnealingPruner(model, RULES, left_of("vital"))

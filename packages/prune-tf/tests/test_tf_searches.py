"""NetAdapt and sensitivity analysis of Keras models: what they try, take, train and leave alone."""

import keras
import numpy as np
import pytest
from keras import layers
from search_runs import (
    QUICK,
    RULES,
    SEARCHES,
    assert_same,
    costs,
    lost,
    nudge,
    search_of,
    two_layers,
    weights_of,
)

import prune_core
import prune_tf
from prune_core import ConfigError, PruneError, PruneWarning
from prune_tf import L1NormPruner, NetAdaptPruner, SensitivityPruner, masks_of, shrink
from prune_tf.arrays import array_of


@pytest.fixture
def model():
    return two_layers()


def adapt(model, evaluate, rules=RULES, **options):
    options = {"pruning_algorithm": "level", "sparsity_per_iteration": 0.1, **options}
    return NetAdaptPruner(model, rules, evaluate=evaluate, **options)


def analyse(model, evaluate, rules=RULES, **options):
    options = {"pruning_algorithm": "level", "sparsity_per_iter": 0.25, **options}
    return SensitivityPruner(model, rules, evaluate, **options)


@pytest.mark.parametrize("name", SEARCHES)
def test_it_is_registered(name):
    assert prune_core.get_pruner(name, framework="keras") is SEARCHES[name]
    assert getattr(prune_tf, SEARCHES[name].__name__) is SEARCHES[name]


# --- NetAdapt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
def test_netadapt_takes_from_the_layer_that_costs_least(model, mode):
    good = costs(1.0, 0.1)
    sign = 1 if mode == "maximize" else -1
    pruner = adapt(model, lambda model: sign * good(model), optimize_mode=mode)
    found, masks = pruner.compress()
    assert found is model
    # Half of 200 weights, 20 in each round, and all of the second layer's that it may lose: with
    # four rounds 80, and in the fifth it cannot lose 100 of 100, so 20 come from the first.
    assert lost(model) == pytest.approx({"a": 0.2, "b": 0.8})
    assert 1 - masks["b"]["kernel"].mean() == pytest.approx(0.8)
    assert pruner.best == {"a": 0.2, "b": 0.8}
    assert pruner.best_score == pytest.approx(sign * (1 - 0.2 - 0.08))
    # the dense model, and then four rounds with two candidates and one with the first layer alone
    assert [trial["trial"] for trial in pruner.history] == [*range(1 + 4 * 2 + 1)]
    assert [trial["sparsities"] for trial in pruner.history[1:3]] == [
        {"a": 0.2, "b": 0.0},
        {"a": 0.0, "b": 0.2},
    ]


def test_netadapt_stops_where_no_layer_can_lose_more(model):
    # Of ten channels a layer may lose five, and 52 % of both together are more than ten.
    rules = [{**RULES[0], "sparsity": 0.52, "max_sparsity_per_layer": 0.55}]
    with pytest.warns(PruneWarning, match="No layer can lose more.*best so far"):
        adapt(model, costs(1.0, 0.1), rules, pruning_algorithm="l1").compress()
    assert lost(model) == pytest.approx({"a": 0.5, "b": 0.5})


def test_candidates_of_a_round_begin_alike_and_the_result_has_the_weights_of_the_best(model):
    begun, tuned = [], {}

    def finetune(model):
        begun.append((lost(model), weights_of(model)))
        nudge(model)
        tuned[len(begun)] = weights_of(model)

    pruner = adapt(model, costs(1.0, 0.1), finetune=finetune, sparsity_per_iteration=0.25)
    dense = weights_of(model)
    pruner.compress()
    # Two rounds: of `a` and `b` a half each, and then b cannot lose the other half.
    assert [shares for shares, _ in begun] == [
        pytest.approx({"a": 0.5, "b": 0.0}),
        pytest.approx({"a": 0.0, "b": 0.5}),
        pytest.approx({"a": 0.5, "b": 0.5}),
    ]
    assert_same([begun[0][1][1], begun[1][1][0]], [dense[1], dense[0]])
    # The last candidate began with what training made of the second.
    assert_same([begun[2][1][1]], [tuned[2][1] * masks_of(model)["b"]["kernel"]])
    kept = [each["kernel"] for each in masks_of(model).values()]
    assert_same(weights_of(model), [w * k for w, k in zip(tuned[3], kept, strict=True)])


# --- sensitivity -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
def test_sensitivity_prunes_in_proportion_to_what_layers_tolerate(model, mode):
    good = costs(1.0, 0.25)
    sign = 1 if mode == "maximize" else -1
    pruner = analyse(
        model,
        lambda model: sign * good(model),
        rules=[{"sparsity": 0.25, "op_names": ["a", "b"]}],
        acc_drop_threshold=0.21,
        optimize_mode=mode,
    )
    pruner.compress()
    # `a` costs 0.1 for each tenth and tolerates two; `b` a quarter of that and tolerates eight.
    # A quarter of 200 weights in the proportion 2 : 8.
    assert pruner.best == {"a": 0.1, "b": 0.4}
    assert lost(model) == pytest.approx(pruner.best)
    alone = [(p["layer"], p["sparsity"]) for p in pruner.curves]
    assert sorted(alone) == [("a", n / 10) for n in (1, 2, 3)] + [
        ("b", n / 10) for n in range(1, 10)
    ]
    assert pruner.curves[0]["score"] == pytest.approx(sign * 0.9)


def test_shares_of_ones_own(model):
    pruner = analyse(
        model, costs(1.0, 0.1), sparsity_proportion_calc=lambda found: dict.fromkeys(found, 1.0)
    )
    pruner.compress()
    assert pruner.best == {"a": 0.5, "b": 0.5}


def test_sensitivity_trains_after_each_round(model):
    seen = []

    def finetune(model):
        seen.append(lost(model))
        nudge(model)

    before = weights_of(model)
    pruner = analyse(model, costs(1.0, 0.25), finetune=finetune)
    pruner.compress()
    assert [sum(each.values()) / 2 for each in seen] == pytest.approx([0.25, 0.5])
    # What training has left, and not what was there before, is in force.
    for now, then in zip(weights_of(model), before, strict=True):
        assert (now[now != 0] != then[now != 0]).all()
    # The plan of each round is scored twice: before training, and after.
    plans = [trial["sparsities"] for trial in pruner.history]
    assert plans[-1] == plans[-2] == pruner.best


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_without_training_no_weight_changes_but_to_zero(name, model, zeros_hold):
    before = weights_of(model)
    pruner = search_of(name, model)
    assert not masks_of(model)
    pruner.compress()
    zeros_hold(model)
    assert sum(lost(model).values()) / 2 == pytest.approx(0.5)
    kept = [each["kernel"] for each in masks_of(model).values()]
    assert_same(weights_of(model), [w * k for w, k in zip(before, kept, strict=True)])
    assert not masks_of(pruner.unwrap())


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("which", ["evaluate", "finetune"])
def test_what_fails_leaves_the_model_as_it_was(name, which, model):
    model.compile(keras.optimizers.Adam(0.1), "mse")
    x = np.ones((4, 10))
    model.fit(x, x, verbose=0)
    before = weights_of(model), [array_of(v).copy() for v in model.optimizer.variables]
    calls = []

    def finetune(model):
        model.fit(x, x, verbose=0)
        calls.append("finetune")
        if which == "finetune" and len(calls) > 3:
            raise RuntimeError("no data")

    def evaluate(model):
        calls.append("evaluate")
        if which == "evaluate" and "finetune" in calls:
            raise RuntimeError("no data")
        return costs(1.0, 0.25)(model)

    with pytest.raises(RuntimeError, match="no data"):
        search_of(name, model, evaluate=evaluate, finetune=finetune).compress()
    assert "finetune" in calls
    assert not masks_of(model)
    assert_same(weights_of(model), before[0])
    assert_same([array_of(v) for v in model.optimizer.variables], before[1])


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"evaluate": None}, "evaluate is None; it must be a function"),
        ({"evaluate": 0.5}, "evaluate is 0.5; it must be a function"),
        ({"finetune": 3}, "finetune is 3"),
        ({"optimize_mode": "max"}, "'maximize' or 'minimize'"),
        ({"seed": 0.5}, "seed is 0.5; it must be a whole number"),
        ({"pruning_algorithm": "agp"}, "must be a one-shot pruner"),
        ({"experiment_data_dir": "x", "checkpoint": "y"}, "keep one"),
        ({"optimizer": "sgd"}, "takes no 'optimizer'"),
    ],
)
def test_mistakes_are_named(name, model, options, says):
    with pytest.raises(ConfigError, match=says):
        search_of(name, model, **options)
    assert not masks_of(model)


@pytest.mark.parametrize(
    ("search", "options", "says"),
    [
        (adapt, {"sparsity_per_iteration": 0}, "sparsity_per_iteration is 0"),
        (analyse, {"sparsity_per_iter": 0}, "sparsity_per_iter is 0"),
        (analyse, {"acc_drop_threshold": -1}, "acc_drop_threshold is -1"),
        (analyse, {"ratios": [1.5]}, "must be numbers between 0 and 1"),
    ],
)
def test_mistakes_of_one_search_are_named(search, model, options, says):
    with pytest.raises(ConfigError, match=says):
        search(model, costs(1.0, 0.1), **options)
    assert not masks_of(model)


@pytest.mark.parametrize(
    ("score", "says"), [(float("nan"), "returned nan"), (None, "returned None")]
)
def test_a_score_that_is_no_number(model, score, says):
    with pytest.raises(PruneError, match=says):
        adapt(model, lambda model: score).compress()
    assert not masks_of(model)


def test_a_model_that_is_masked_is_refused(model):
    pruner = adapt(model, costs(1.0, 0.1))
    L1NormPruner(model, RULES).compress()
    with pytest.raises(ConfigError, match="masked already"):
        pruner.compress()
    with pytest.raises(ConfigError, match="masked already"):
        adapt(model, costs(1.0, 0.1))


@pytest.mark.parametrize("search", [adapt, analyse])
def test_what_asks_for_nothing_is_an_error(model, search):
    rules = [{"sparsity": 0.0, "op_names": ["a", "b"]}]
    with pytest.raises(PruneError, match="has nothing to search for"):
        search(model, costs(1.0, 0.1), rules).compress()
    assert not masks_of(model)


# --- a journey -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_train_search_shrink(name):
    """Classes that a few channels tell apart, searched with training in between."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int64")
    net = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(24, activation="relu", name="a"),
            layers.Dense(24, activation="relu", name="b"),
            layers.Dense(2, name="head"),
        ]
    )
    net.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    net.fit(x, y, epochs=30, verbose=0)

    def accuracy(model):
        logits = array_of(model(x))
        return float((logits.argmax(1) == y).mean())

    dense = accuracy(net)
    assert dense > 0.95
    pruner = SEARCHES[name](
        net,
        RULES,
        evaluate=accuracy,
        finetune=lambda model: model.fit(x, y, epochs=2, verbose=0),
        pruning_algorithm="l1",
        **QUICK[name],
    )
    net, _ = pruner.compress()
    assert accuracy(net) == pytest.approx(pruner.best_score, abs=0.005)
    assert accuracy(net) > dense - 0.05
    report = shrink(net)
    assert report.parameters[1] < 0.6 * report.parameters[0]
    assert report.difference < 1e-5
    assert accuracy(report.model) == pytest.approx(accuracy(net), abs=0.005)

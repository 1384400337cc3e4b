"""Searches of Keras models that are told what may be left of parameters, FLOPs or time."""

import json

import keras
import pytest
from keras import layers

import prune_tf
from prune_core import ConfigError
from prune_tf import (
    NetAdaptPruner,
    SensitivityPruner,
    SimulatedAnnealingPruner,
    masks_of,
    shrink,
)
from prune_tf.search import model_budget

SEARCHES = {
    NetAdaptPruner: {"sparsity_per_iteration": 0.15},
    SensitivityPruner: {"sparsity_per_iter": 0.25},
    SimulatedAnnealingPruner: {"stop_temperature": 60.0, "pruning_algorithm": "l1"},
}


def chain():
    """Layers of 4 × 8, 8 × 10 and 10 × 2 weights: 132."""
    return keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, use_bias=False, activation="relu", name="a"),
            layers.Dense(10, use_bias=False, activation="relu", name="b"),
            layers.Dense(2, use_bias=False, name="head"),
        ]
    )


def residual():
    """What `stem` and `out` make is added, so that they lose the same channels."""
    inputs = layers.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = layers.BatchNormalization(beta_initializer="random_normal", name="norm")(x)
    x = layers.ReLU()(x)
    y = layers.Conv2D(12, 3, padding="same", activation="relu", name="inner")(x)
    y = layers.Conv2D(8, 3, padding="same", name="out")(y)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


def kept(model):
    """How much is left of layers, as a score that knows nothing of how good they are."""
    return sum(
        float(each["kernel"].mean()) for each in masks_of(model).values() if "kernel" in each
    )


def made(search, model, **options):
    rules = [{"op_types": ["Dense", "Conv2D"]}, {"op_names": ["head"], "exclude": True}]
    return search(model, rules, **{"evaluate": kept} | SEARCHES[search] | options)


def test_netadapt_by_hand():
    """A channel of `a` is 4 weights and the 10 that read it; one of `b` 8 and 2."""

    def evaluate(model):
        return -sum(float((~each["kernel"]).sum()) for each in [masks_of(model)["b"]])

    model = chain()
    pruner = made(NetAdaptPruner, model, target={"parameters": 0.7}, evaluate=evaluate)
    pruner.compress()
    # 112.2 of 132 weights after the first round, by two channels of `a` or two of `b`; 92.4 then.
    assert [each["sparsities"] for each in pruner.history] == [
        {"a": 0.0, "b": 0.0},
        {"a": 0.25, "b": 0.0},
        {"a": 0.0, "b": 0.2},
        {"a": 0.375, "b": 0.0},
        {"a": 0.25, "b": 0.2},
    ]
    assert pruner.best == {"a": 0.375, "b": 0.0}
    report = shrink(model)
    assert report.parameters == (132, 132 - 3 * 14)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("kind", ["flops", "parameters"])
def test_what_is_left_meets_the_target(search, kind):
    model = residual()
    pruner = made(search, model, target={kind: 0.5})
    pruner.compress()
    assert pruner.best["stem"] == pruner.best["out"]
    report = shrink(model)
    before, after = getattr(report, kind)
    assert 0.3 < after / before <= 0.5
    assert report.difference < 1e-5
    # Nothing that is masked has stayed, so the small model needs no masks.
    assert not masks_of(report.model)


def test_masks_of_one_trial_are_gone_in_the_next():
    """Also those on the batch norm behind a masked convolution."""
    seen = []

    def evaluate(model):
        masks = masks_of(model)
        gone = ~masks["stem"]["bias"]
        if "norm" in masks:
            assert (~masks["norm"]["beta"] == gone).all()
        seen.append(gone.sum())
        return -float(gone.sum())

    made(NetAdaptPruner, residual(), target={"parameters": 0.6}, evaluate=evaluate).compress()
    assert 0 in seen[2:]
    assert max(seen) > 0


def test_without_a_target_layers_that_belong_together_agree():
    model = residual()
    rules = [{"sparsity": 0.5, "op_names": ["stem", "inner", "out"]}]
    pruner = NetAdaptPruner(
        model,
        rules,
        evaluate=kept,
        sparsity_per_iteration=0.25,
        pruning_params={"mode": "dependency_aware"},
    )
    pruner.compress()
    masks = masks_of(model)
    assert (masks["stem"]["bias"] == masks["out"]["bias"]).all()
    gone = sum(float((~masks[name]["kernel"]).sum()) for name in ("stem", "inner", "out"))
    whole = sum(masks[name]["kernel"].size for name in ("stem", "inner", "out"))
    assert 0.5 <= gone / whole < 0.6


def test_a_latency_is_measured_once_for_each_size(tmp_path, monkeypatch):
    measured = []

    def time(small, large, inputs):
        assert inputs.shape[1:] == (4,)
        measured.append(small.count_params() / large.count_params())
        return measured[-1]

    monkeypatch.setattr(model_budget, "relative_latency", time)
    model = chain()
    options = {"target": {"latency": 0.6}, "experiment_data_dir": tmp_path}
    before = model.get_weights()
    first = made(NetAdaptPruner, model, **options)
    first.compress()
    assert shrink(model).parameters[1] <= 0.6 * 132
    # The dense model is 1, and not measured.
    known = json.loads((tmp_path / "latency.json").read_bytes()).values()
    assert sorted([*measured, 1.0]) == sorted(known)
    prune_tf.unwrap(model)
    model.set_weights(before)
    count = len(measured)
    second = made(NetAdaptPruner, model, **options)
    second.compress()
    assert len(measured) == count
    assert second.history == first.history


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": {"flop": 0.5}}, "target has 'flop'"),
        ({"target": {"flops": 0.5}, "pruning_algorithm": "level"}, "'level' has no mode"),
        ({"target": {"flops": 0.5}, "pruning_params": {"mode": "normal"}}, "dependency_aware"),
    ],
)
def test_mistakes_are_named(search, options, says):
    model = chain()
    with pytest.raises(ConfigError, match=says):
        made(search, model, **options)
    assert not masks_of(model)


def test_a_sparsity_beside_a_target_is_refused():
    with pytest.raises(ConfigError, match="says 'sparsity': 0.5, and target is"):
        NetAdaptPruner(
            chain(),
            [{"op_names": ["a"], "sparsity": 0.5}],
            evaluate=kept,
            target={"flops": 0.5},
        )


def test_a_latency_needs_a_folder_where_trials_are_kept(tmp_path):
    model = chain()
    pruner = made(
        NetAdaptPruner, model, target={"latency": 0.5}, checkpoint=tmp_path / "search.json"
    )
    with pytest.raises(ConfigError, match="in a folder: give experiment_data_dir= in place"):
        pruner.compress()
    assert not masks_of(model)


def test_a_target_that_cannot_be_met_is_an_error():
    model = chain()
    rules = [{"op_names": ["a"], "max_sparsity_per_layer": 0.25}]
    with pytest.raises(ConfigError, match="with as much gone as may go"):
        SensitivityPruner(model, rules, kept, target={"parameters": 0.5}).compress()
    assert not masks_of(model)

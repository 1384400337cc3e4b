"""Channels that can only go together are chosen together, and then all of them go."""

import keras
import numpy as np
import pytest
from keras import layers

import prune_tf
from prune_core import ConfigError, PruneError, PruneWarning, SpeedupError
from prune_tf import L1NormPruner, PruningSchedule, masks_of, shrink

HALF = [{"sparsity": 0.5, "op_types": ["default"]}]


@pytest.fixture
def residual():
    x = layers.Input((8, 8, 3))
    start = layers.Conv2D(4, 3, padding="same", name="start")(x)
    y = layers.Conv2D(6, 3, padding="same", activation="relu", name="inner")(start)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Conv2D(4, 3, padding="same", name="branch")(y)
    y = layers.GlobalAveragePooling2D()(layers.Add()([start, y]))
    return keras.Model(x, layers.Dense(3, name="out")(y), name="residual")


def kept(masks, name):
    return masks[name]["bias"].tolist()


def test_the_scores_of_what_is_added_are_added(residual):
    scale = np.array([1.0, 2.0, 3.0, 4.0])
    for name, factors in (("start", scale), ("branch", scale[::-1] ** 2)):
        kernel = residual.get_layer(name).kernel
        norms = factors / np.prod(kernel.shape[:3])
        kernel.assign(np.broadcast_to(norms, kernel.shape))
    # 1 + 16, 2 + 9, 3 + 4, 4 + 1: the last two go in both
    _, masks = L1NormPruner(residual, HALF, mode="dependency_aware").compress()
    assert kept(masks, "start") == kept(masks, "branch") == [True, True, False, False]
    assert kept(masks, "inner") == kept(masks, "depthwise")
    assert sum(kept(masks, "inner")) == 3


def test_outputs_of_the_model_stay_and_everything_else_goes(residual):
    pruner = L1NormPruner(residual, HALF, mode="dependency_aware")
    _, masks = pruner.compress()
    assert all(kept(masks, "out"))
    small = shrink(residual, constants="zero").model
    widths = {name: small.get_layer(name).filters for name in ("start", "inner", "branch")}
    assert widths == {"start": 2, "inner": 3, "branch": 2}


def test_layers_that_are_not_selected_hold_the_others(residual):
    rules = [{"sparsity": 0.5, "op_names": ["start", "inner", "depthwise"]}]
    pruner = L1NormPruner(residual, rules, mode="dependency_aware")
    with pytest.warns(PruneWarning, match="'start' is left dense.*'branch'"):
        _, masks = pruner.compress()
    assert all(kept(masks, "start"))
    assert sum(kept(masks, "inner")) == 3


def test_a_group_loses_the_smallest_ratio_that_is_asked_for(residual):
    rules = [*HALF, {"sparsity": 0.25, "op_names": ["branch"]}]
    _, masks = L1NormPruner(residual, rules, mode="dependency_aware").compress()
    assert sum(kept(masks, "start")) == 3


def test_channels_side_by_side_are_chosen_each_for_itself():
    x = layers.Input((8,))
    a, b = layers.Dense(4, name="a")(x), layers.Dense(2, name="b")(x)
    y = layers.Concatenate()([a, b])
    y = layers.Add()([y, layers.Dense(6, name="c")(x)])
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    _, masks = L1NormPruner(model, HALF, mode="dependency_aware").compress()
    assert kept(masks, "c") == kept(masks, "a") + kept(masks, "b")
    assert (sum(kept(masks, "a")), sum(kept(masks, "b"))) == (2, 1)


def test_what_is_gone_stays_gone_while_a_schedule_runs(residual):
    pruner = L1NormPruner(residual, HALF, mode="dependency_aware")
    residual.compile("sgd", "mse")
    schedule = PruningSchedule(pruner, end_step=4, curve="linear")
    residual.fit(
        *(np.ones((16, 8, 8, 3)), np.ones((16, 3))), batch_size=4, verbose=0, callbacks=[schedule]
    )
    masks = masks_of(residual)
    assert kept(masks, "start") == kept(masks, "branch")
    assert sum(kept(masks, "start")) == 2


@pytest.mark.parametrize("name", ["L2NormPruner", "FPGMPruner", "ActivationAPoZRankPruner"])
def test_every_criterion_of_channels_can(residual, name):
    data = {"data": np.ones((4, 8, 8, 3), "float32")} if name.startswith("Act") else {}
    pruner = getattr(prune_tf, name)(residual, HALF, mode="dependency_aware", **data)
    _, masks = pruner.compress()
    assert kept(masks, "start") == kept(masks, "branch")
    assert sum(kept(masks, "start")) == 2


def test_a_subclassed_model_is_refused_before_anything_changes():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.fc = layers.Dense(4)

        def call(self, x):
            return self.fc(x) * float(keras.ops.sum(x) > 0)

    model = Net()
    model(np.ones((1, 3)))
    with pytest.raises(SpeedupError, match="Python code of its own"):
        L1NormPruner(model, HALF, mode="dependency_aware")
    assert masks_of(model) == {}
    with pytest.raises(ConfigError, match="modes of LevelPruner"):
        prune_tf.LevelPruner(model, HALF, mode="dependency_aware")


def test_one_line_prunes_what_can_go(residual):
    model, masks = prune_tf.prune(residual, "l1", sparsity=0.5)
    assert model is residual
    assert kept(masks, "start") == kept(masks, "branch")
    assert all(kept(masks, "out"))
    assert shrink(model, constants="zero").parameters[1] < 0.4 * model.count_params()


def test_one_line_takes_names_types_and_options(residual):
    _, masks = prune_tf.prune(residual, "l2", sparsity=0.5, targets="inner", mode="normal")
    assert [*masks] == ["inner"]
    _, masks = prune_tf.prune(residual, "level", sparsity=0.5, targets="Conv2D", exclude="start")
    assert sorted(masks) == ["branch", "inner"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"targets": [1]}, r"targets is \[1\]; it must be a name"),
        ({"targets": "Conv3d"}, "Conv3d"),
        ({"algorithm": "l3"}, "l3"),
        ({"sparsity": None}, "Say how much to prune"),
        ({"algorithm": 0.5}, "algorithm is 0.5; it must be the name of one"),
        ({"algorithm": "taylorfo"}, "TaylorFOWeightPruner needs 'data'. It takes model"),
        ({"example_inputs": 1}, "cannot be run on example_inputs"),
        ({"dummy_input": 1}, "Keras models are read without inputs"),
        ({"target": {"flops": 0.5}}, "Say how much to prune, once"),
        ({"sparsity": None, "target": {"flop": 0.5}}, "Did you mean 'flops'"),
        ({"sparsity": None, "target": {"latncy": 0.5}}, "Did you mean 'latency'"),
        ({"round_to": 0}, "round_to is 0; it must be a whole number"),
        ({"round_to": 2, "mode": "normal"}, "mode is 'normal', which masks each layer for itself"),
        ({"uniform": True, "algorithm": "level"}, "'level' has no mode 'dependency_aware'"),
        ({"constants": "none"}, "constants is 'none'"),
        ({"mod": "global"}, "L1NormPruner takes no 'mod'. Did you mean 'mode'"),
        ({"mode": "dependency"}, "Did you mean 'dependency_aware'"),
        ({"exclude": "head"}, "exclude has 'head', and the model has no layer .* There are start"),
        ({"exclude": "iner"}, "exclude has 'iner', .* Did you mean 'inner'"),
    ],
)
def test_mistakes_in_one_line_leave_the_model_alone(residual, how, message):
    with pytest.raises(PruneError, match=message):
        prune_tf.prune(residual, **{"sparsity": 0.5, **how})
    assert masks_of(residual) == {}


def test_a_summary_says_what_is_masked(residual):
    pruner = L1NormPruner(residual, [{"sparsity": 0.5, "op_names": ["inner"]}])
    pruner.compress()
    [row] = pruner.summary().rows
    assert (row.layer, row.type, row.shape) == ("inner", "Conv2D", (3, 3, 4, 6))
    assert (row.asked, row.reached, row.left, row.total) == (0.5, 0.5, 111, 222)
    assert "111 of 222" in str(pruner.summary())

"""Schedules follow the optimizer, however its steps are run."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from prune_core import ConfigError
from prune_core.curves import cubic, linear
from prune_core.errors import PruneWarning
from prune_tf import AGPSchedule, L1NormPruner, LevelPruner, PruningSchedule, polynomial
from prune_tf.masks import masks_of

X, Y = np.ones((96, 10), "float32"), np.ones((96, 10), "float32")


@pytest.fixture
def model():
    return keras.Sequential([layers.Input((10,)), layers.Dense(10, use_bias=False, name="fc")])


class Watch(keras.callbacks.Callback):
    """Notes the step and the sparsity after each run of steps."""

    def __init__(self, pruner):
        super().__init__()
        self.pruner, self.seen = pruner, {}

    def on_train_batch_end(self, batch, logs=None):
        step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        self.seen[step] = self.pruner.sparsity()["fc"]


def train(model, schedule_of, optimizer=None, *, epochs=1, **how):
    pruner = LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}])
    model.compile(optimizer or keras.optimizers.SGD(0.01), "mse", **how)
    watch = Watch(pruner)
    callbacks = [schedule_of(pruner), watch]
    model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks)
    return watch.seen


def expected(curve, step, end=10):
    progress = min(step, end) / end
    return int(round(curve(progress, 0.0, 0.8) * 100, 9)) / 100


@pytest.mark.parametrize("curve", [linear, cubic, polynomial(2)])
def test_each_step_has_the_sparsity_of_the_curve(model, curve):
    seen = train(model, lambda p: PruningSchedule(p, end_step=10, curve=curve))
    assert len(seen) == 12
    for step, sparsity in seen.items():
        assert sparsity == pytest.approx(expected(curve, step), abs=1e-9)


class Grown(keras.callbacks.Callback):
    """Notes how many weights a step has made of what was masked before it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        kernel = ops.convert_to_numpy(self.model.get_layer("fc").kernel)
        masked = ~masks_of(self.model)["fc"]["kernel"]
        self.seen.append((np.count_nonzero(kernel[masked]), int(masked.sum())))


def test_each_step_of_a_fit_that_is_running_computes_with_the_newest_masks(model):
    pruner, grown = LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}]), Grown()
    schedule = PruningSchedule(pruner, end_step=9, frequency=3, curve=linear)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    # It looks before the schedule does, which would set to zero what has grown.
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[grown, schedule])
    assert [masked for _, masked in grown.seen] == [0, 0, 0, 26, 26, 26, 53, 53, 53, 80, 80, 80]
    assert not any(nonzero for nonzero, _ in grown.seen)


@pytest.mark.tensorflow("an option with which TensorFlow compiles another step")
def test_several_steps_at_once_end_at_the_same_sparsity(model):
    seen = train(
        model, lambda p: PruningSchedule(p, end_step=10, curve=linear), steps_per_execution=4
    )
    assert {step: round(sparsity, 2) for step, sparsity in seen.items()} == {
        4: 0.32,
        8: 0.64,
        12: 0.8,
    }


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            {"jit_compile": True},
            marks=pytest.mark.tensorflow("an option with which TensorFlow compiles another step"),
        ),
        {"run_eagerly": True},
    ],
    ids=str,
)
def test_compiled_or_eager_makes_no_difference(model, how, zeros_hold):
    seen = train(model, lambda p: PruningSchedule(p, end_step=10, curve=linear), **how)
    assert seen[5] == pytest.approx(0.4)
    assert seen[12] == pytest.approx(0.8)
    zeros_hold(model)


def test_accumulated_gradients_count_as_one_step(model):
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=3)
    seen = train(model, lambda p: PruningSchedule(p, end_step=4, curve=linear), optimizer)
    assert {step: round(sparsity, 2) for step, sparsity in seen.items()} == {
        0: 0.0,
        1: 0.2,
        2: 0.4,
        3: 0.6,
        4: 0.8,
    }


def test_mixed_precision_and_loss_scaling():
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [layers.Input((10,)), layers.Dense(10, use_bias=False, dtype=policy, name="fc")]
    )
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=8.0)
    seen = train(model, lambda p: PruningSchedule(p, end_step=10, curve=linear), optimizer)
    assert seen[12] == pytest.approx(0.8)


def test_frequency_and_start(model):
    seen = train(
        model,
        lambda p: PruningSchedule(
            p, start_step=2, end_step=11, frequency=4, initial_sparsity=0.2, curve=linear
        ),
    )
    sparsities = [round(seen[step], 2) for step in range(1, 13)]
    assert sparsities == [0.0] + [0.2] * 4 + [0.46] * 4 + [0.73] + [0.8] * 2


def test_agp_by_name_and_class(model):
    seen = train(model, lambda p: AGPSchedule(p, end_step=10, frequency=5))
    assert seen[5] == pytest.approx(expected(cubic, 5))
    assert seen[10] == pytest.approx(0.8)
    pruner = L1NormPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}])
    assert PruningSchedule(pruner, end_step=10, curve="cubic").curve is cubic


def test_a_second_fit_goes_on_where_the_first_ended(model):
    pruner = LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    with pytest.warns(PruneWarning, match="ended at step 12, before end_step=24"):
        model.fit(
            X, Y, batch_size=8, verbose=0, callbacks=[PruningSchedule(pruner, 24, curve=linear)]
        )
    assert pruner.sparsity()["fc"] == pytest.approx(0.4)
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[PruningSchedule(pruner, 24, curve=linear)])
    assert pruner.sparsity()["fc"] == pytest.approx(0.8)


def test_a_run_resumed_from_a_file_ends_with_the_same_masks(model, tmp_path):
    def fit(model, epochs, first=0):
        pruner = LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}])
        model.fit(
            X,
            Y,
            batch_size=8,
            epochs=epochs,
            initial_epoch=first,
            shuffle=False,
            verbose=0,
            callbacks=[PruningSchedule(pruner, 24)],
        )

    whole = keras.models.clone_model(model)
    whole.set_weights(model.get_weights())
    for each in (model, whole):
        each.compile(keras.optimizers.Adam(0.01), "mse")
    fit(whole, 2)
    with pytest.warns(PruneWarning):
        fit(model, 1)
    model.save(tmp_path / "half.keras")
    resumed = keras.models.load_model(tmp_path / "half.keras")
    fit(resumed, 2, first=1)
    np.testing.assert_array_equal(
        masks_of(resumed)["fc"]["kernel"], masks_of(whole)["fc"]["kernel"]
    )
    np.testing.assert_array_equal(resumed.get_weights()[0], whole.get_weights()[0])


def test_averaged_weights_get_their_zeros_back(model, zeros_hold):
    optimizer = keras.optimizers.SGD(0.01, use_ema=True)
    train(model, lambda p: PruningSchedule(p, end_step=10, curve=linear), optimizer)
    zeros_hold(model)


def test_restored_weights_get_their_zeros_back(model, zeros_hold):
    model.compile("sgd", "mse")
    pruner = LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}])
    # The best is what was before there were any zeros.
    worst = keras.callbacks.EarlyStopping("loss", mode="max", restore_best_weights=True)
    schedule = PruningSchedule(pruner, start_step=12, end_step=20)
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[worst, schedule])
    assert pruner.sparsity() == {"fc": 0.8}
    zeros_hold(model)


def test_another_model_than_the_pruners_is_refused(model):
    other = keras.Sequential([layers.Input((10,)), layers.Dense(10)], name="other")
    other.compile("sgd", "mse")
    pruner = LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}])
    with pytest.raises(ConfigError, match="the one that is trained is 'other'"):
        other.fit(X, Y, verbose=0, callbacks=[PruningSchedule(pruner, 10)])
    copy = keras.models.clone_model(model)
    copy.compile("sgd", "mse")
    with pytest.raises(ConfigError, match="the one that is trained is a copy of it"):
        copy.fit(X, Y, verbose=0, callbacks=[PruningSchedule(pruner, 10)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"end_step": 0}, "end after it starts"),
        ({"end_step": 5, "start_step": 5}, "end after it starts"),
        ({"end_step": 5, "frequency": 0}, "frequency is 0"),
        ({"end_step": 5, "frequency": 2.5}, "frequency is 2.5; it must be a whole number"),
        ({"end_step": True}, "end_step is True; it must be a whole number"),
        ({"end_step": 5, "initial_sparsity": 1.0}, "initial_sparsity is 1.0"),
        ({"end_step": 5, "initial_sparsity": "0.1"}, "initial_sparsity is '0.1'; it must be a num"),
        ({"end_step": 5, "curve": 3}, "curve is 3; it must be the name of a schedule"),
    ],
)
def test_mistakes_in_arguments(model, arguments, message):
    pruner = LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}])
    with pytest.raises(ConfigError, match=message):
        PruningSchedule(pruner, **arguments)


def test_steps_may_be_numbers_of_numpy(model):
    pruner = LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}])
    schedule = PruningSchedule(pruner, end_step=np.int64(4), frequency=np.int64(2), curve=linear)
    assert [schedule.step(number) for number in (2, 3, 4)] == [True, False, True]
    assert pruner.sparsity() == {"fc": 0.8}


def test_something_else_than_a_pruner_is_refused(model):
    with pytest.raises(ConfigError, match="pruner is a keras.*Sequential; it must be a pruner"):
        PruningSchedule(model, 10)


@pytest.mark.parametrize("ratio", [-0.5, 1.5, float("nan")])
def test_a_curve_that_leaves_the_possible_is_refused(model, ratio):
    with pytest.raises(ConfigError, match="returned .* at progress 0.1 .* is at least 0"):
        train(model, lambda p: PruningSchedule(p, 10, curve=lambda t, i, f: ratio if t else 0.0))
    assert all(mask.all() for mask in masks_of(model)["fc"].values())


def test_a_curve_that_misses_zero_by_rounding_prunes_nothing(model):
    seen = train(model, lambda p: PruningSchedule(p, 12, curve=lambda t, i, f: -1e-17))
    assert set(seen.values()) == {0.0}


def test_a_power_must_be_positive():
    with pytest.raises(ConfigError, match="power is 0"):
        polynomial(0)


@pytest.mark.tensorflow("MirroredStrategy is TensorFlow's")
def test_mirrored_replicas_keep_the_same_masks(zeros_hold):
    import tensorflow as tf

    cpus = tf.config.list_logical_devices("CPU")
    if len(cpus) < 2:
        pytest.skip("needs two logical devices, configured before TensorFlow starts")
    strategy = tf.distribute.MirroredStrategy([cpu.name for cpu in cpus[:2]])
    with strategy.scope():
        model = keras.Sequential([layers.Input((10,)), layers.Dense(10, use_bias=False, name="fc")])
        model.compile(keras.optimizers.SGD(0.01), "mse")
    pruner = LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Dense"]}])
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[PruningSchedule(pruner, 10, curve=linear)])
    model.fit(X, Y, batch_size=8, verbose=0)
    zeros_hold(model)
    kernels = [np.asarray(k) for k in model.layers[0].kernel.value.values]
    assert len(kernels) == 2
    np.testing.assert_array_equal(*kernels)
    assert ((kernels[0] == 0) == ~masks_of(model)["fc"]["kernel"]).all()
    assert (kernels[0] == 0).mean() == pytest.approx(0.8)
    assert ops.is_tensor(ops.convert_to_tensor(model.layers[0].kernel))

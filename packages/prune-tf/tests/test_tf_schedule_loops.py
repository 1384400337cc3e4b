"""Schedules outside of a plain `fit`: own loops, several optimizers, and what a prune costs."""

import time
from functools import partial

import keras
import numpy as np
import pytest
from keras import layers, ops

from prune_core import ConfigError
from prune_core.curves import linear
from prune_speedup.engine.ranking import smallest
from prune_tf import LevelPruner, LinearPruner, PruningSchedule

RULES = [{"sparsity": 0.8, "op_types": ["Dense"]}]
X, Y = np.ones((96, 10), "float32"), np.ones((96, 10), "float32")


@pytest.fixture
def model():
    return keras.Sequential([layers.Input((10,)), layers.Dense(10, use_bias=False, name="fc")])


@pytest.mark.tensorflow("its loop has a tf.GradientTape")
def test_an_own_loop_calls_step(model, zeros_hold):
    import tensorflow as tf

    pruner, optimizer = LevelPruner(model, RULES), keras.optimizers.SGD(0.01)
    schedule = PruningSchedule(pruner, end_step=10, curve=linear, optimizer=optimizer)
    seen = []
    for _ in range(12):
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(model(X) - Y))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        schedule.step()
        seen.append(round(pruner.sparsity()["fc"], 2))
    assert seen[:5] == [0.08, 0.16, 0.24, 0.32, 0.4]
    assert seen[9:] == [0.8] * 3
    zeros_hold(model)


def every_other_step(model):
    pruner = LevelPruner(model, RULES)
    return PruningSchedule(pruner, end_step=6, frequency=2, curve=linear)


def gradually(model):
    rules = [{"sparsity": 0.8, "op_names": ["fc"], "end_step": 6}]
    gradual = LinearPruner(model, rules, "level")
    gradual.compress()
    return gradual


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a loop in the manner of JAX")
@pytest.mark.parametrize(
    ("made", "due"), [(every_other_step, (1, 2, 4, 6)), (gradually, (1, 2, 3, 4, 5))]
)
def test_an_own_jax_loop_is_told_when_to_compile_its_step_anew(made, due, model, zeros_hold):
    import jax

    schedule, optimizer = made(model), keras.optimizers.SGD(0.01)
    pruner = schedule.pruner
    optimizer.build(model.trainable_variables)

    def loss(weights):
        return ops.mean(ops.square(model.stateless_call(weights, [], X)[0] - Y))

    def compiled():
        return jax.jit(lambda w, o: optimizer.stateless_apply(o, jax.grad(loss)(w), w))

    step, slots = compiled(), [v.value for v in optimizer.variables]
    weights, told = [v.value for v in model.trainable_variables], []
    for number in range(1, 9):
        weights, slots = step(weights, slots)
        for variable, value in zip(model.trainable_variables, weights, strict=True):
            variable.assign(value)
        if pruner.sparsity()["fc"]:
            zeros_hold(model)
        told.append(schedule.step(number))
        if told[-1]:
            step, weights = compiled(), [v.value for v in model.trainable_variables]
    # The first of a schedule prunes nothing yet.
    assert told == [number in due for number in range(1, 9)]
    assert pruner.sparsity()["fc"] == pytest.approx(0.8)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch runs Python each time")
@pytest.mark.parametrize("made", [every_other_step, gradually])
def test_a_step_inside_of_what_is_compiled_is_refused(made, model):
    import sys

    backend = sys.modules[keras.backend.backend()]
    on_jax = keras.backend.backend() == "jax"
    compiled = backend.jit if on_jax else partial(backend.function, autograph=False)
    schedule = made(model)

    def train(x):
        schedule.step(3)
        return x

    with pytest.raises(
        ConfigError, match=r"step\(\) is called inside of .* Call it after the step"
    ):
        compiled(train)(ops.ones(3))
    schedule.step(6)
    assert schedule.pruner.sparsity()["fc"] == pytest.approx(0.8)


def test_a_loop_without_an_optimizer_of_keras_counts_by_itself(model):
    pruner = LevelPruner(model, RULES)
    schedule = PruningSchedule(pruner, end_step=10, curve=linear)
    with pytest.raises(ConfigError, match=r"optimizer=optimizer\), or the number, schedule.step"):
        schedule.step()
    for number in range(1, 6):
        schedule.step(number)
    assert pruner.sparsity()["fc"] == pytest.approx(0.4)


class TwoOptimizers(keras.Model):
    """A generator that is trained against nothing, by an optimizer of its own."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator
        self.generator_optimizer = keras.optimizers.SGD(0.01)

    def call(self, x):
        return self.generator(x)

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self.generator(x) - y))
        weights = self.generator.trainable_variables
        self.generator_optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


@pytest.mark.tensorflow("its loop has a tf.GradientTape")
@pytest.mark.parametrize("how", [{}, {"optimizer": "sgd"}], ids=str)
def test_a_model_with_several_optimizers_says_which_one_counts(model, zeros_hold, how):
    both = TwoOptimizers(model)
    both.compile(**how)
    pruner = LevelPruner(model, RULES)
    with pytest.raises(ConfigError, match=r"Say which one counts: PruningSchedule\(..., optimizer"):
        both.fit(X, Y, batch_size=8, verbose=0, callbacks=[PruningSchedule(pruner, 10)])
    both = TwoOptimizers(model)
    both.compile(**how)
    schedule = PruningSchedule(pruner, 10, optimizer=both.generator_optimizer)
    both.fit(X, Y, batch_size=8, verbose=0, callbacks=[schedule])
    assert pruner.sparsity() == {"fc": 0.8}
    zeros_hold(model)


def test_an_optimizer_that_is_none_is_refused(model):
    with pytest.raises(ConfigError, match="optimizer is a builtins.str; it must be a Keras optim"):
        PruningSchedule(LevelPruner(model, RULES), 10, optimizer="sgd")


def test_masks_are_made_when_more_is_due_and_a_hundred_times_at_most(model, monkeypatch):
    pruner, calls = LevelPruner(model, RULES), []
    compress_to = pruner.compress_to
    monkeypatch.setattr(pruner, "compress_to", lambda share: calls.append(compress_to(share)))
    schedule = PruningSchedule(pruner, end_step=2000, curve=linear)
    assert schedule.frequency == 20
    for number in range(2001):
        schedule.step(number)
    # 80 of 100 weights go, one after the other.
    assert len(calls) == 81
    assert pruner.sparsity()["fc"] == pytest.approx(0.8)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 8, 9])
def test_the_smallest_are_those_that_a_stable_sort_puts_first(count):
    values = np.array([3.0, -np.inf, 2.0, 2.0, 1.0, 2.0, 5.0, 1.0])
    expected = np.zeros(8, bool)
    expected[np.argsort(values, kind="stable")[:count]] = True
    np.testing.assert_array_equal(smallest(values, count), expected)


def test_choosing_the_smallest_takes_no_sort():
    values = np.random.default_rng(0).normal(size=2_000_000).astype("float32")

    def seconds(work):
        start = time.process_time()
        work()
        return time.process_time() - start

    assert seconds(lambda: smallest(values, 1_000_000)) < 0.6 * seconds(
        lambda: np.argsort(values, kind="stable")
    )

"""AutoCompress for Keras: rounds of search and training, and a model that gets smaller."""

from functools import cache

import keras
import numpy as np
import pytest
from autocompress_runs import QUICK, RULES, X, Y, assert_same, auto, net, numbers, score, train
from keras import layers

import prune_core
from prune_core import ConfigError
from prune_core.testing import check_pruner
from prune_tf import AutoCompressPruner, L1NormPruner, masks_of
from prune_tf.arrays import array_of


def test_it_is_registered():
    assert prune_core.get_pruner("autocompress", framework="keras") is AutoCompressPruner


def test_each_round_takes_the_same_part_of_what_is_left_and_removes_it():
    model = net()
    before = numbers(model)
    pruner = auto(model)
    result = pruner.run()
    # 1 − √¼ = half of the eight units after the first round, three quarters after the second
    assert [trial["sparsity"] for trial in result.history] == [0.5, 0.75]
    assert result.model.get_layer("a").units == 2
    assert result.model.get_layer("norm").gamma.shape == (2,)
    assert result.model.get_layer("b").units == 8
    assert [len(search) for search in pruner.searches] == [5, 5]
    assert result.sparsities == pruner.sparsities == {"a": 0.75}
    assert result.complete
    assert result.masks == {}
    assert result.score == score(result.model) == result.history[-1]["score"]
    # The model that was given is as it was, masks, weights and all.
    assert model is not result.model
    assert model.get_layer("a").units == 8
    assert not masks_of(model)
    assert_same(numbers(model), before)


def test_the_small_model_trains_on():
    small, masks = auto(net(eager=False)).compress()
    assert masks == {}
    steps = int(array_of(small.optimizer.iterations))
    assert steps == 8  # two rounds of two iterations with one epoch of two batches
    before = score(small)
    small.fit(X, Y, epochs=20, verbose=0)
    assert score(small) > before


def test_what_goes_with_the_channels_of_another_layer_counts():
    rules = [{"sparsity": 0.5, "op_names": ["a", "b"]}]
    result = auto(rules=rules, total_iteration=1).run()
    small = result.model
    a, b = small.get_layer("a").units, small.get_layer("b").units
    left = 4 * a + a * b
    assert result.history[-1]["sparsity"] == pytest.approx(1 - left / 96)
    # Half of 96 weights, and not much more: a unit of `a` takes 4 + 8 of them.
    assert 48 - 12 < left <= 48


def test_a_target_is_met_by_the_last_round():
    result = auto(rules=[{"op_names": ["a", "b"]}], target={"flops": 0.4}).run()
    first, last = (trial["left"]["flops"] for trial in result.history)
    assert last <= 0.4 < first <= 0.4**0.5
    a, b = (result.model.get_layer(name).units for name in "ab")
    assert last == pytest.approx((4 * a + a * b + 2 * b) / (4 * 8 + 8 * 8 + 8 * 2))


@pytest.mark.parametrize("how", [{"pruning_algorithm": "level"}, {"speedup": False}])
def test_without_speedup_the_model_itself_is_masked_and_masks_grow(how, zeros_hold):
    model, masks = net(), []
    pruner = auto(
        model, finetuner=lambda model: masks.append(masks_of(model)["a"]["kernel"]), **how
    )
    result = pruner.run()
    assert result.model is model
    first, last = masks
    assert first.mean() == 0.5
    assert last.mean() == 0.25
    assert not (last & ~first).any()
    assert [trial["sparsity"] for trial in result.history] == [0.5, 0.75]
    np.testing.assert_array_equal(result.masks["a"]["kernel"], last)
    zeros_hold(model)
    assert pruner.unwrap() is model
    assert not masks_of(model)


def test_training_is_of_the_large_model_and_the_finetuner_gets_the_small_one():
    seen = {"finetune": [], "finetuner": []}

    def finetune(model):
        seen["finetune"].append(model.get_layer("a").units)
        train(model)

    auto(
        finetune=finetune,
        finetuner=lambda model: seen["finetuner"].append(model.get_layer("a").units),
    ).compress()
    assert seen == {"finetune": [8, 8, 4, 4], "finetuner": [4, 2]}


def test_a_loss_of_the_users_own_goes_on_in_the_small_model():
    def own(y, found):
        return keras.ops.mean(keras.ops.square(y - found))

    small, _ = auto(net(loss=own), total_iteration=2).compress()
    assert small.get_layer("a").units == 2


def test_where_nothing_is_to_go_the_model_itself_comes_back():
    model = net()
    result = auto(model, rules=[{"sparsity": 0.0, "op_names": ["a"]}], total_iteration=1).run()
    assert result.model is model
    assert result.sparsities == {"a": 0.0}


def padded():
    """Offsets make constants of masked channels, and those reach the borders of a convolution."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(8, 3, padding="same", name="a"),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(4, 3, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    model.get_layer("norm").beta.assign(np.linspace(0.5, 1, 8))
    return model


def test_what_cannot_be_removed_stays_masked_and_the_next_round_begins_with_it():
    images = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")
    begins = []

    def seen(model):
        begins.append((model.get_layer("a").filters, masks_of(model)["a"]["bias"].sum()))

    result = auto(
        padded(),
        finetune=seen,
        evaluate=lambda model: float(array_of(model(images)).std()),
        admm_num_iterations=1,
        pruning_params={"mode": "normal"},
    ).run()
    filters = result.model.get_layer("a").filters
    # One channel stays to carry the constant of all that are masked.
    assert begins == [(8, 8), (5, 4)]
    assert filters == 3
    assert result.masks["a"]["bias"].sum() == 2
    assert result.sparsities == {"a": 0.75}


class Block(layers.Layer):
    """Registered nowhere, so that Keras would not find it by its name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, activation="relu", name="first")
        self.second = layers.Dense(4, name="second")

    def call(self, inputs):
        return inputs + self.second(self.first(inputs))


class Own(keras.Model):
    """A subclassed model with layers inside of a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block, self.head = Block(name="block"), layers.Dense(2, name="head")

    def call(self, inputs):
        return self.head(self.block(inputs))


def own():
    keras.utils.set_random_seed(0)
    model = Own()
    model(X)
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    return model


def test_classes_of_the_users_own_get_smaller_again_and_again(tmp_path):
    results = [
        auto(own(), [{"sparsity": 0.75, "op_names": ["block/first"]}], checkpoint=tmp_path / "run")
        for _ in range(2)
    ]
    first, again = (pruner.run().model for pruner in results)
    assert isinstance(first, Own)
    assert first.block.first.units == again.block.first.units == 2
    assert_same(numbers(again), numbers(first))


# --- interrupted ------------------------------------------------------------------------------


class Counted:
    """Functions that raise something when they have been called so often together."""

    def __init__(self, stop=None, error=SystemExit):
        self.calls, self.stop, self.error = 0, stop, error

    def __call__(self, function):
        def call(model):
            self.calls += 1
            if self.calls == self.stop:
                raise self.error
            return function(model)

        return call

    def options(self):
        return {"finetune": self(train), "evaluate": self(score), "finetuner": self(train)}


# A round is five trials, two epochs, one of fine-tuning and one score: 1–5, 6–7, 8, 9.
@pytest.mark.parametrize(("stop", "error"), [(2, RuntimeError), (7, KeyboardInterrupt)])
@pytest.mark.parametrize("speedup", [True, False])
def test_before_a_round_is_complete_the_model_is_as_it_was(stop, error, speedup):
    model = net()
    train(model)
    before = numbers(model)
    with pytest.raises(error):
        auto(model, speedup=speedup, **Counted(stop, error).options()).run()
    assert not masks_of(model)
    assert_same(numbers(model), before)
    train(model)
    assert model.get_layer("a").kernel.numpy().all()


@cache
def never_stopped(speedup, rate=0.0):
    """How often a run that nothing stops calls functions, what its rounds are and where it ends."""
    counted = Counted()
    keras.utils.set_random_seed(0)
    result = auto(net(rate=rate), speedup=speedup, **counted.options()).run()
    return counted.calls, result.history, numbers(result.model)


@pytest.mark.parametrize(("stop", "speedup"), [(11, True), (16, False), (18, True)])
def test_ctrl_c_ends_with_the_last_complete_round_and_the_next_run_goes_on(stop, speedup):
    _, rounds, end = never_stopped(speedup)
    pruner = auto(speedup=speedup, **Counted(stop, KeyboardInterrupt).options())
    result = pruner.run()
    assert not result.complete
    assert len(result.history) == 1
    assert result.sparsities == {"a": 0.5}
    assert score(result.model) == result.score == rounds[0]["score"]
    again = pruner.run()
    assert again.complete
    assert_same(numbers(again.model), end)


def test_an_error_in_a_later_round_leaves_what_the_round_before_has_made():
    pruner = auto(**Counted(16, RuntimeError).options())
    with pytest.raises(RuntimeError):
        pruner.run()
    assert pruner.bound_model.get_layer("a").units == 4
    assert score(pruner.bound_model) == pruner.history[0]["score"]


@pytest.mark.parametrize(
    ("kept", "speedup", "stop"),
    [
        ("checkpoint", True, 16),
        ("checkpoint", False, 11),
        ("experiment_data_dir", True, 4),
        ("experiment_data_dir", True, 16),
        ("experiment_data_dir", False, 11),
    ],
)
def test_it_goes_on_where_it_was(kept, speedup, stop, tmp_path):
    # Elsewhere the first fit of a model draws more than later ones, so that nothing is drawn here.
    rate = 0.5 if keras.backend.backend() == "tensorflow" else 0.0

    def run(stop=None):
        counted = Counted(stop)
        pruner = auto(
            net(rate=rate), speedup=speedup, **{kept: tmp_path / "run"}, **counted.options()
        )
        try:
            return pruner.run(), counted.calls
        except SystemExit:
            return None, counted.calls

    calls, rounds, end = never_stopped(speedup, rate)
    assert run(stop) == (None, stop)
    keras.utils.set_random_seed(99)
    again, more = run()
    # In a folder, trials and iterations of the round that was stopped are not made again.
    known = {4: 3, 11: 1, 16: 5 + 1}[stop] if kept == "experiment_data_dir" else 0
    assert more == calls - (9 if stop > 9 else 0) - known
    assert [_timeless(each) for each in again.history] == [_timeless(t) for t in rounds]
    assert_same(numbers(again.model), end)
    third, none = run()
    assert none == 0
    assert_same(numbers(third.model), end)


def _timeless(trial):
    return {name: value for name, value in trial.items() if name != "seconds"}


def test_reading_a_file_leaves_the_model_that_was_given_as_it_is(tmp_path):
    auto(checkpoint=tmp_path / "rounds").run()
    model = net()
    before = numbers(model)
    auto(model, checkpoint=tmp_path / "rounds").run()
    assert_same(numbers(model), before)


@pytest.mark.parametrize(
    ("said", "options"),
    {
        "whose admm is .*0.25": {"row": 0.25},
        "whose admm is .*'iterations': 5": {"admm_num_iterations": 5},
        "whose annealing is .*0.6": {"cool_down_rate": 0.6},
        "whose seed is 0; here it is 1": {"seed": 1},
        "whose weights is": {"model": net},
    }.items(),
)
def test_a_file_of_another_run_is_refused(said, options, tmp_path):
    options = dict(options)
    path = tmp_path / "rounds"
    auto(total_iteration=1, checkpoint=path).run()
    model = options.pop("model", lambda: None)()
    if model is not None:
        train(model)
    with pytest.raises(ConfigError, match=said):
        auto(model, total_iteration=1, checkpoint=path, **options).run()


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "options"),
    {
        "searches for what scores best": {"evaluate": None},
        "trains the model: give finetune=": {"finetune": None},
        "total_iteration is 0": {"total_iteration": 0},
        "iterations is 0": {"admm_num_iterations": 0},
        "'level' masks single weights": {"speedup": True, "pruning_algorithm": "level"},
        "keep one of the two": {"target": {"flops": 0.5}},
        "must be a one-shot pruner": {"pruning_algorithm": "agp"},
        "granularity": {"admm_params": {"granularity": "rough"}},
        "takes no 'iteration'. Did you mean 'iterations'?": {"admm_params": {"iteration": 3}},
        "the temperature falls": {"start_temperature": 10.0},
        "'maximize' or 'minimize'": {"optimize_mode": "max"},
        "no module of that name": {"rules": [{"sparsity": 0.5, "op_names": ["c"]}]},
    }.items(),
)
def test_mistakes_are_named(said, options):
    model = net()
    with pytest.raises(ConfigError) as caught:
        auto(model, **options)
    assert said in str(caught.value)
    assert not masks_of(model)


def test_a_model_that_is_masked_is_refused():
    model = net()
    L1NormPruner(model, RULES).compress()
    with pytest.raises(ConfigError, match="masked already"):
        auto(model)


def test_it_is_no_callback():
    with pytest.raises(ConfigError, match="searches and trains in rounds"):
        net().fit(X, Y, callbacks=[auto()], verbose=0)


def test_without_speedup_it_keeps_what_every_pruner_promises():
    check_pruner(
        AutoCompressPruner,
        speedup=False,
        finetune=lambda model: None,
        evaluate=lambda model: 1.0,
        **QUICK,
        # The sparsity is that of all layers together, and there are no masks before compress().
        skip=["sparsity", "files"],
    )

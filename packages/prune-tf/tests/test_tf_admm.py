"""ADMM for Keras, on numbers that can be checked by hand."""

import keras
import numpy as np
import pytest
from keras import layers

import prune_core
from prune_core import ConfigError
from prune_tf import ADMMPruner, LevelPruner, masks_of, shrink
from prune_tf.arrays import array_of

RULES = [{"sparsity": 0.5, "op_types": ["Dense"]}]


def line(values=(1.0, 2.0, 3.0, 4.0), rate=1.0, regularizer=None):
    """A dense layer from as many inputs to one output, trained by plain gradient descent."""
    net = keras.Sequential(
        [
            layers.Input((len(values),)),
            layers.Dense(1, use_bias=False, kernel_regularizer=regularizer, name="line"),
        ]
    )
    net.set_weights([np.array(values).reshape(-1, 1)])
    net.compile(keras.optimizers.SGD(rate), lambda y, y_pred: keras.ops.mean(y * y_pred))
    return net


def weight_of(model):
    return array_of(model.get_layer("line").kernel)[:, 0].tolist()


def with_gradient(value):
    """Return a step of training in which the loss alone has this gradient."""
    x, y = np.ones((1, 4)), np.full((1, 1), value)
    return lambda model: model.fit(x, y, verbose=0)


def prepare(model, train=None, rho=0.5, **options):
    options = {"iterations": 1, "training_epochs": 1, **options}
    rules = [{**RULES[0], "rho": rho}]
    return ADMMPruner(model, rules, finetune=train or with_gradient(0.0), **options)


def test_it_is_registered():
    assert prune_core.get_pruner("admm", framework="keras") is ADMMPruner


def test_three_iterations_by_hand():
    model, seen = line(), []
    steps = with_gradient(0.0)

    def train(model):
        steps(model)
        seen.append(weight_of(model))

    pruner = prepare(model, train, iterations=3)
    found, masks = pruner.compress()
    assert found is model
    # At first Z = W and U = 0, so there is no penalty; then Z = (0, 0, 3, 4), U = W − Z = (1, 2, 0,
    # 0), and the gradient is ½ · (W − Z + U) = (1, 2, 0, 0). Then W = Z, U stays, and the gradient
    # is half of that.
    assert seen == [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 3.0, 4.0], [-0.5, -1.0, 3.0, 4.0]]
    gaps = [each["gap"] for each in pruner.history]
    assert gaps == pytest.approx([(5 / 30) ** 0.5, 0.0, (1.25 / 26.25) ** 0.5])
    assert [each["trial"] for each in pruner.history] == [0, 1, 2]
    assert masks["line"]["kernel"][:, 0].tolist() == [False, False, True, True]
    assert weight_of(model) == [0.0, 0.0, 3.0, 4.0]


def test_the_gradient_of_the_loss_is_kept():
    model = line()
    prepare(model, with_gradient(1.0)).compress()
    assert weight_of(model) == [0.0, 0.0, 2.0, 3.0]


def test_what_regularizes_the_weight_already_stays():
    model = line(regularizer=keras.regularizers.L2(0.25))  # its gradient is half of the weight
    regularizer = model.get_layer("line").kernel.regularizer
    pruner = prepare(model, iterations=2)
    pruner.compress()
    # (½, 1, 1½, 2) after the first; then Z = (0, 0, 1½, 2), and ½ · (1, 2, 0, 0) and the half go.
    assert weight_of(model) == [0.0, 0.0, 0.75, 1.0]
    assert pruner.history[1]["gap"] == pytest.approx((0.0625 + 0.25) ** 0.5 / (1.875**0.5))
    assert model.get_layer("line").kernel.regularizer is regularizer
    assert len(model.losses) == 1


def test_after_it_nothing_pulls():
    model = line()
    prepare(model, rho=100.0, iterations=2).compress()
    before = weight_of(model)
    with_gradient(0.0)(model)
    assert weight_of(model) == before
    assert not model.losses


def test_weights_move_to_where_pruning_does_not_hurt():
    """Better than one shot at the same sparsity, with as much training before it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 12)).astype("float32")
    x[:, 6:] = x[:, :6] + 0.3 * x[:, 6:]  # pairs of inputs that say nearly the same
    y = x @ rng.normal(size=(12, 1))

    def loss(model):
        return float(np.mean((array_of(model(x)) - y) ** 2))

    def made():
        keras.utils.set_random_seed(0)
        net = keras.Sequential([layers.Input((12,)), layers.Dense(1, name="line")])
        net.compile(keras.optimizers.SGD(0.05), "mse")
        return net

    def train(model):
        model.fit(x, y, epochs=2, verbose=0)

    net = made()
    rules = [{"sparsity": 0.5, "op_names": ["line"], "rho": 2.0}]
    pruner = ADMMPruner(net, rules, train, iterations=10, training_epochs=1)
    net, masks = pruner.compress()
    assert masks["line"]["kernel"].sum() == 6
    gaps = [each["gap"] for each in pruner.history]
    assert gaps[-1] < gaps[0] / 10

    other = made()
    for _ in range(10):
        train(other)
    LevelPruner(other, [{"sparsity": 0.5, "op_names": ["line"]}]).compress()
    assert loss(net) < 0.8 * loss(other)


def test_whole_channels_become_a_small_model():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)).astype("float32")
    net = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(16, activation="relu", name="hidden"),
            layers.Dense(3, name="head"),
        ]
    )
    net.compile("adam", "mse")
    ADMMPruner(
        net,
        [{"sparsity": 0.5, "op_names": ["hidden"]}],
        lambda model: model.fit(x, x[:, :3], verbose=0),
        iterations=2,
        training_epochs=2,
        granularity="coarse-grained",
    ).compress()
    report = shrink(net)
    assert report.model.get_layer("hidden").units == 8
    assert report.difference < 1e-5


def test_ctrl_c_ends_the_training_and_prunes():
    model, calls = line(), []

    def train(model):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    pruner = prepare(model, train, iterations=5)
    pruner.compress()
    assert len(pruner.history) == 2
    assert pruner.pruner.sparsity() == {"line": 0.5}
    assert not masks_of(pruner.unwrap())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"finetune": None}, "ADMMPruner trains the model: give finetune="),
        ({"finetune": 3}, "finetune is 3"),
        ({"iterations": 0}, "iterations is 0; it must be a whole number of at least 1"),
        ({"training_epochs": 1.5}, "training_epochs is 1.5"),
        ({"row": 0}, "row is 0; it must be a number above 0"),
        ({"granularity": "rows"}, "granularity is 'rows'; it must be one of fine-grained"),
        ({"pruning_algorithm": "agp"}, "must be a one-shot pruner of Keras"),
        ({"config_list": [{**RULES[0], "rho": -1}]}, "'rho' is -1"),
        ({"trainer": print}, "takes no 'trainer'"),
    ],
)
def test_mistakes_are_named(options, says):
    model = line()
    with pytest.raises(ConfigError, match=says):
        ADMMPruner(model, **{"config_list": RULES, "finetune": print} | options)
    assert not masks_of(model)


def test_it_is_no_callback():
    model = line()
    with pytest.raises(ConfigError, match="between trainings. Give it finetune="):
        model.fit(np.ones((1, 4)), np.ones((1, 1)), callbacks=[prepare(model)])


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_training_that_was_stopped_goes_on(stop, tmp_path):
    # Elsewhere the first fit of a model draws more than later ones, so that nothing is drawn here.
    shuffle = keras.backend.backend() == "tensorflow"
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")

    def run(place, stop=None, **options):
        calls, model = [], line(rate=0.1)
        model.compile(keras.optimizers.Adam(0.1), "mse")

        def train(model):
            if len(calls) == stop:
                raise SystemExit
            calls.append(1)
            model.fit(x, x[:, :1], batch_size=2, shuffle=shuffle, verbose=0)

        options = {"iterations": 2, "training_epochs": 2, "checkpoint": tmp_path / place} | options
        pruner = prepare(model, train, **options)
        try:
            pruner.compress()
        except SystemExit:
            assert len(calls) == stop
        return pruner, len(calls), weight_of(model), masks_of(model)["line"]["kernel"]

    whole, calls, weights, masks = run("whole")
    assert calls == 4
    run("run", stop)
    again, more, found, kept = run("run")
    # An iteration of two epochs is kept when it is complete.
    assert more == {1: 4, 3: 2, 4: 0}[stop]
    assert found == weights
    assert again.history == whole.history
    np.testing.assert_array_equal(kept, masks)
    with pytest.raises(ConfigError, match="whose iterations is 2; here it is 3"):
        run("run", iterations=3)

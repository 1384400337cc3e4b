"""What is refused, and wrong models that are found out."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_networks import (
    HALF,
    assert_equal,
    padded,
    realistic,
    sequential,
)

from prune_core import ConfigError, MaskError, PruneWarning, SpeedupError
from prune_speedup.engine.values import UNIFORM, ZERO
from prune_tf import (
    L1NormPruner,
    masks_of,
    shrink,
)
from prune_tf.speedup.rules import RULES


def test_a_layer_of_which_a_copy_has_two_is_refused():
    x, y, twin = layers.Input((5, 8)), layers.Input((8,)), layers.Dense(8, name="twin")
    both = [layers.GlobalAveragePooling1D()(layers.TimeDistributed(twin, name="each")(x)), twin(y)]
    hidden = layers.Dense(6, name="hidden")(layers.Concatenate()(both))
    model = keras.Model([x, y], layers.Dense(3, name="out")(hidden))
    L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["hidden"]}]).compress()
    with pytest.raises(
        SpeedupError, match="'twin' is used both inside .* in a copy it would be two"
    ):
        shrink(model)


class Optional(keras.Model):
    """Has a branch for an input that it may be called without."""

    def __init__(self, **options):
        super().__init__(**options)
        self.one = layers.Dense(8, name="one")
        self.other = layers.Dense(8, name="other")
        self.out = layers.Dense(3, name="out")

    def call(self, x, y=None):
        hidden = self.one(x)
        return self.out(hidden if y is None else hidden + self.other(y))


# Keras says that the copy has parts that nobody has built, which is the reason for the error.
@pytest.mark.filterwarnings(r"ignore:`build\(\)` was called on layer 'optional':UserWarning")
def test_a_layer_with_parts_that_a_call_leaves_out_is_refused():
    model, x = Optional(name="optional"), np.ones((2, 5), "float32")
    model(x, y=np.ones((2, 4), "float32"))
    L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["one"]}]).compress()
    with pytest.raises(SpeedupError, match="'optional' calls its 'other' only with arguments"):
        shrink(model, x)


def test_what_the_model_was_compiled_with_comes_along_where_it_can(samples):
    def mean_square(y, predicted):
        return ops.mean(ops.square(predicted), axis=-1)

    model = sequential()
    L1NormPruner(model, HALF).compress()
    model.compile("sgd", "sparse_categorical_crossentropy")
    small = shrink(model).model
    small.fit(samples[0], samples[1] % 3, verbose=0)
    assert small.optimizer is not model.optimizer
    model.compile("sgd", mean_square)
    assert shrink(model).model.loss is mean_square
    model.compile("sgd", lambda y, predicted: mean_square(y, predicted))
    with pytest.warns(PruneWarning, match=r"not compiled; call compile\(\).*lambda"):
        report = shrink(model)
    assert not report.model.compiled
    assert model.compiled
    assert_equal(model, report.model)


def test_training_the_small_model_leaves_the_large_one_alone(cnn, samples):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    small = shrink(cnn).model
    before = [np.array(w) for w in cnn.get_weights()]
    small.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    small.fit(*samples, verbose=0)
    for old, new in zip(before, cnn.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_wrong_rule_is_found_out_and_nothing_is_returned(monkeypatch):
    model = realistic(padded())
    L1NormPruner(model, HALF).compress()
    before = [np.array(w) for w in model.get_weights()]

    def forgets_the_offset(flow, call):
        made = RULES["BatchNormalization"](flow, call)
        [group] = made.groups
        states = group.states()
        zeros = group.with_states(np.where(states == UNIFORM, ZERO, states))
        return dataclasses.replace(made, groups=(zeros,))

    rules = RULES | {"BatchNormalization": forgets_the_offset}
    monkeypatch.setattr("prune_tf.speedup.rules.registry.RULES", rules)
    with pytest.raises(SpeedupError, match="outputs differ .* 'functional.*' is untouched"):
        shrink(model)
    monkeypatch.setattr(
        "prune_tf.speedup.rules.registry.RULES",
        RULES | {"BatchNormalization": RULES["Identity"]},
    )
    with pytest.raises(SpeedupError, match="do not fit together"):
        shrink(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_equals_what_is_no_number(cnn, value):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    cnn.get_layer("head").bias.assign([0.0, value, 0.0, 0.0])
    with pytest.raises(SpeedupError, match="masked model puts out NaN or infinity"):
        shrink(cnn)


def test_a_small_model_that_puts_out_no_number_is_found_out(cnn, monkeypatch):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()

    def fill(old, new, plan):
        if new.weights:
            new.set_weights([np.full(w.shape, np.nan) for w in new.weights])

    monkeypatch.setattr("prune_tf.speedup.rebuild._fill", fill)
    with pytest.raises(SpeedupError, match="outputs differ from the masked model's by inf"):
        shrink(cnn)


def test_example_inputs_that_do_not_fit(cnn):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    with pytest.raises(ConfigError, match=r"shape \(1, 3, 8, 8\); it takes \(None, 8, 8, 3\)"):
        shrink(cnn, np.ones((1, 3, 8, 8), "float32"))
    with pytest.raises(ConfigError, match="looks like masks; write shrink"):
        shrink(cnn, masks_of(cnn))


def test_mistakes_in_arguments(cnn):
    with pytest.raises(ConfigError, match="constants is 'zeros'.*Did you mean 'zero'"):
        shrink(cnn, constants="zeros")
    with pytest.raises(ConfigError, match="tolerance is nan; it must be a number"):
        shrink(cnn, tolerance=float("nan"))
    with pytest.raises(MaskError, match="no layer of that name"):
        shrink(cnn, masks={"nope": {"kernel": np.ones(1)}})
    with pytest.raises(SpeedupError, match="model is a builtins.int; it must be a Keras 3 model"):
        shrink(3)

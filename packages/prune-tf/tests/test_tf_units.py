"""Units, budgets, widths and files of Keras models, as torch models have them."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import prune_tf
from prune_core import ConfigError, PruneWarning, SpeedupError, get_engine
from prune_speedup.engine.plan import make_plan
from prune_tf import load_pruned, masks_of, save_pruned, shrink, units
from prune_tf.speedup.cost import cost_of
from prune_tf.speedup.find_units import analysed


def image_model(size=8):
    x = layers.Input((size, size, 3))
    start = layers.Conv2D(16, 3, padding="same", use_bias=False, name="start")(x)
    start = layers.BatchNormalization(name="norm")(start)
    y = layers.Conv2D(32, 3, padding="same", activation="relu", name="inner")(start)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Conv2D(16, 3, padding="same", name="branch")(y)
    y = layers.GlobalAveragePooling2D()(layers.Add()([start, y]))
    return keras.Model(x, layers.Dense(3, name="out")(y), name="image")


def trained(model):
    """Statistics of batch norms that are not those of a new layer."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def width(model, name):
    return model.get_layer(name).kernel.shape[-1]


def test_units_name_all_that_goes_together():
    found = units(image_model())
    by_name = {group.name: group for group in found.groups}
    assert {name: len(group) for name, group in by_name.items()} == {
        "start/kernel[3]": 16,
        "inner/kernel[3]": 32,
    }
    assert by_name["start/kernel[3]"].axes == (
        ("start/kernel", 3),
        ("norm/gamma", 0),
        ("norm/beta", 0),
        ("norm/moving_mean", 0),
        ("norm/moving_variance", 0),
        ("inner/kernel", 2),
        ("branch/kernel", 3),
        ("branch/bias", 0),
        ("out/kernel", 0),
    )


def test_units_say_why_something_stays():
    found = units(image_model())
    assert "the model returns it" in found.why_fixed("out/kernel", 1)
    assert "tied to something that stays" in found.why_fixed("start/kernel", 2)
    x = layers.Input((4,))
    hidden = layers.LayerNormalization(name="ln")(layers.Dense(6, name="hidden")(x))
    found = units(keras.Model(x, layers.Dense(2, name="out")(hidden)))
    assert not found.groups
    assert "takes a mean over them" in found.why_fixed("hidden/kernel", 1)
    one = keras.Sequential([layers.Input((4,)), layers.Dense(1, name="a"), layers.Dense(2)])
    assert "length one" in units(one).why_fixed("a/kernel", 1)


def test_the_units_that_are_named_go():
    model = trained(image_model())
    found = units(model)
    group = next(group for group in found.groups if group.name == "inner/kernel[3]")
    chosen = [found.unit(label) for label in group.labels[:5]]
    report = shrink(model, units=chosen)
    assert width(report.model, "inner") == 27
    assert width(report.model, "start") == 16
    assert report.removed == 5
    assert report.difference < 1e-5
    by_hand = shrink(model, units=[{"inner/kernel": {3: (0, 1)}}])
    assert width(by_hand.model, "inner") == 30
    assert masks_of(model) == {}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([{"out/kernel": {1: (0,)}}], "cannot lose index 0 along axis 1.*returns it"),
        ([{"outs": {1: (0,)}}], "'outs' has no axis 1"),
        ([{"start/kernel": {3: (16,)}}], "has 16 indices along axis 3, and index 16"),
        ([3], "units has 3; it must be made of units"),
    ],
)
def test_units_that_cannot_go_are_refused(chosen, message):
    with pytest.raises(SpeedupError, match=message):
        shrink(image_model(), units=chosen)


@pytest.mark.parametrize(
    "target", [{"flops": 0.5}, {"parameters": 0.3}, {"flops": 0.6, "parameters": 0.5}]
)
def test_the_small_model_is_within_its_budget_and_not_far_below(target):
    model = trained(image_model())
    prune_tf.prune(model, "l1", target=target)
    report = shrink(model)
    trainable = [sum(np.prod(v.shape) for v in m.trainable_weights) for m in (model, report.model)]
    left = {
        "flops": report.flops[1] / report.flops[0],
        "parameters": trainable[1] / trainable[0],
    }
    assert all(left[name] <= ratio for name, ratio in target.items())
    assert any(left[name] > ratio - 0.1 for name, ratio in target.items())
    assert report.difference < 1e-5


def test_a_budget_that_cannot_be_met_leaves_the_model_alone():
    model = image_model()
    with pytest.raises(ConfigError, match="with 99% of everything that may be pruned gone"):
        prune_tf.prune(model, "l1", target={"flops": 0.02}, targets=["inner", "depthwise"])
    assert masks_of(model) == {}


def test_widths_are_multiples():
    model = trained(image_model())
    prune_tf.prune(model, "l2", sparsity=0.4, round_to=8)
    small = shrink(model).model
    assert (width(small, "start"), width(small, "inner")) == (16, 24)


def test_layers_that_are_alike_stay_equally_wide():
    def model():
        x = layers.Input((6,))
        y = layers.Dense(6, name="stem")(x)
        for at in (0, 1):
            hidden = layers.Dense(20, name=f"up{at}")(y)
            y = layers.Add()([y, layers.Dense(6, name=f"down{at}")(layers.ReLU()(hidden))])
        made = keras.Model(x, layers.Dense(2, name="out")(y))
        # One layer of channels that are all alike, and one of which few have nearly all weight.
        for at, scale in enumerate((np.ones(20), np.geomspace(1, 1000, 20))):
            made.get_layer(f"up{at}").kernel.assign(np.tile(scale, (6, 1)))
        return made

    widths = {}
    for uniform in (False, True):
        pruned = model()
        prune_tf.prune(pruned, "l1", sparsity=0.5, mode="global", uniform=uniform)
        small = shrink(pruned).model
        widths[uniform] = [width(small, f"up{at}") for at in (0, 1)]
    assert widths[True][0] == widths[True][1]
    assert widths[False][0] > widths[False][1]


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_all_that_one_line_masks_goes(activation):
    x = layers.Input((8, 8, 3))
    y = layers.Conv2D(8, 3, padding="same", name="a")(x)
    y = layers.Activation(activation)(layers.BatchNormalization(name="norm")(y))
    y = layers.Conv2D(4, 3, padding="same", name="b")(y)
    model = trained(keras.Model(x, y))
    _, masks = prune_tf.prune(model, "l1", sparsity=0.5)
    assert not masks["norm"]["beta"].all()
    report = shrink(model)
    assert width(report.model, "a") == 4
    assert report.difference < 1e-5


def test_the_report_counts_work_and_memory():
    model = image_model()
    prune_tf.prune(model, "l1", sparsity=0.5)
    report = shrink(model)
    before, after = report.flops
    by_hand = 2 * 64 * (27 * 16 + 144 * 32 + 9 * 32 + 288 * 16) + 2 * 16 * 3
    assert before == by_hand
    by_hand = 2 * 64 * (27 * 8 + 72 * 16 + 9 * 16 + 144 * 8) + 2 * 8 * 3
    assert after == by_hand
    assert report.bytes == tuple(4 * count for count in report.parameters)
    assert report.removed == 8 + 16
    assert f"{before:,} → {after:,}" in report.table()
    told = json.loads(report.to_json())
    assert told["flops"] == [before, after]
    assert told["changes"][0]["name"] == "start/kernel"


LAYERS = {
    "dense": ((5,), layers.Dense(4), 2 * 5 * 4),
    "dense_in_rows": ((3, 5), layers.Dense(4), 2 * 3 * 5 * 4),
    "strided": ((9, 9, 2), layers.Conv2D(4, 3, strides=2), 2 * 4 * 4 * 4 * 18),
    "grouped": ((6, 6, 4), layers.Conv2D(8, 3, groups=2), 2 * 4 * 4 * 8 * 9 * 2),
    "transposed": ((4, 4, 2), layers.Conv2DTranspose(3, 2, strides=2), 2 * 4 * 4 * 2 * 3 * 4),
    "depthwise": ((6, 6, 2), layers.DepthwiseConv2D(3, depth_multiplier=2), 2 * 16 * 4 * 9),
    "separable": ((6, 6, 2), layers.SeparableConv2D(5, 3), 2 * 16 * (2 * 9 + 2 * 5)),
    "einsum": ((3, 5), layers.EinsumDense("abc,cde->abde", (None, 2, 4)), 2 * 3 * 5 * 8),
    "dots": ((3, 5), layers.EinsumDense("...c,cd->...d", 4), 2 * 3 * 5 * 4),
    "lstm": ((7, 5), layers.LSTM(4), 2 * 7 * 16 * (5 + 4)),
    "gru": ((7, 5), layers.GRU(4), 2 * 7 * 12 * (5 + 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_is_counted(name):
    shape, layer, flops = LAYERS[name]
    model = keras.Sequential([layers.Input(shape), layers.Identity(), layer])
    found, _ = analysed(model)
    assert cost_of(make_plan(found.labelling, ())).flops == flops


def test_attention_is_counted():
    x = layers.Input((6, 8))
    model = keras.Model(x, layers.MultiHeadAttention(2, 4, name="mha")(x, x))
    found, _ = analysed(model)
    projections, products = 4 * 2 * 6 * 8 * 8, 2 * 2 * 2 * 6 * 6 * 4
    assert cost_of(make_plan(found.labelling, ())).flops == projections + products


def test_open_sizes_are_followed_through_strides():
    """With images of any size, the second layer still works on a quarter of the places."""
    x = layers.Input((None, None, 3))
    y = layers.Conv2D(4, 2, strides=2, name="a")(x)
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, strides=2, name="b")(y))
    found, _ = analysed(keras.Model(x, layers.Dense(2)(y)))
    flops = cost_of(make_plan(found.labelling, ())).flops
    assert flops == 2 * (32 * 32 * 12 * 4 + 16 * 16 * 4 * 4 + 4 * 2)


def test_small_models_come_back_from_files(tmp_path):
    model = trained(image_model())
    prune_tf.prune(model, "l1", sparsity=0.5)
    report = shrink(model)
    report.save(tmp_path / "small.keras")
    loaded = load_pruned(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), report.model.predict(x, verbose=0))
    with pytest.raises(SpeedupError, match="ends in '.keras'.*export_model"):
        save_pruned(model, tmp_path / "small.h5")
    with pytest.raises(SpeedupError, match="smal.keras does not exist.*'small.keras'"):
        load_pruned(tmp_path / "smal.keras")
    with pytest.raises(SpeedupError, match=r"load_pruned\(path\), or a dense model before it"):
        load_pruned(model)
    again = get_engine("keras").load_pruned(image_model(), tmp_path / "small.keras")
    assert again.count_params() == report.parameters[1]
    other = keras.Sequential([layers.Input((4,)), layers.Dense(2, name="else")])
    with pytest.raises(SpeedupError, match="is of another model than 'sequential"):
        load_pruned(other, tmp_path / "small.keras")
    (tmp_path / "broken.keras").write_bytes(b"no model")
    with pytest.raises(SpeedupError, match="cannot be read as a Keras model"):
        load_pruned(tmp_path / "broken.keras")


def test_a_dense_model_brings_the_classes_of_its_layers(tmp_path):
    class Halved(layers.Layer):
        def call(self, x):
            return x / 2

    x = layers.Input((4,))
    y = Halved(name="halved")(layers.Dense(8, name="hidden")(x))
    model = keras.Model(x, layers.Dense(2, name="out")(y))
    prune_tf.prune(model, "l1", sparsity=0.5)
    shrink(model).save(tmp_path / "small.keras")
    with pytest.raises(SpeedupError, match="Halved"):
        load_pruned(tmp_path / "small.keras")
    assert load_pruned(model, tmp_path / "small.keras").get_layer("hidden").units == 4


def test_an_output_that_no_input_reaches_is_told():
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(2, name="out"),
        ]
    )
    model.get_layer("hidden").bias.assign(-1e7 * np.ones(8))
    masks = {
        "hidden": {"kernel": np.array([[False] * 4 + [True] * 4] * 4), "bias": np.arange(8) > 3}
    }
    with pytest.warns(PruneWarning, match="is the same for every sample"):
        report = shrink(model, masks=masks)
    assert report.constant_outputs == (0,)
    assert "output 0 is the same for every sample" in report.table()


def test_an_output_of_whole_numbers_is_not_taken_for_one_that_stays():
    x = layers.Input((4,))
    y = layers.Dense(2, name="out")(layers.Dense(8, name="hidden")(x))
    model = keras.Model(x, keras.ops.floor(y / 1000) + 1)
    kept = np.arange(8) > 3
    report = shrink(model, masks={"hidden": {"kernel": np.array([kept] * 4), "bias": kept}})
    assert report.constant_outputs == ()


def test_a_function_may_run_the_model_in_the_place_of_data():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    masks = []
    for options in ({"data": [x[:8], x[8:]]}, {"calibrate": lambda model: model(x)}):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([layers.Input((4,)), layers.Dense(6, name="a"), layers.Dense(2)])
        masks.append(prune_tf.prune(model, "mean_activation", sparsity=0.5, **options)[1])
    np.testing.assert_array_equal(masks[0]["a"]["kernel"], masks[1]["a"]["kernel"])
    for options, message in (
        ({"data": x, "calibrate": len}, "data and calibrate are both given"),
        ({}, "needs 'data'.*or 'calibrate'"),
        ({"calibrate": x}, "calibrate is .*; it must be a function"),
    ):
        with pytest.raises(ConfigError, match=message):
            prune_tf.prune(model, "mean_activation", sparsity=0.5, **options)

"""Smaller models compute what the masked ones do, and exactly what is masked goes."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_networks import (
    HALF,
    MODELS,
    assert_equal,
    depends_on_the_input,
    ended,
    image,
    inverted_bottleneck,
    padded,
    plain,
    realistic,
    residual,
    settled,
    sigmoid_and_padding,
)

from prune_core import PruneWarning, SpeedupError
from prune_tf import (
    L1NormPruner,
    LevelPruner,
    SlimPruner,
    apply_masks,
    masks_of,
    set_masks,
    shrink,
    unwrap,
)


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_the_small_model_computes_what_the_masked_one_does(build):
    model = realistic(build())
    L1NormPruner(model, HALF).compress()
    before = [np.array(w) for w in model.get_weights()]
    report = shrink(model)
    assert report.difference <= 1e-5
    assert report.parameters[1] < report.parameters[0]
    assert report.unknown == {}
    assert_equal(model, report.model)
    assert depends_on_the_input(report.model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("build", [padded, residual, inverted_bottleneck], ids=lambda b: b.__name__)
def test_masking_norms_too_lets_more_go(build):
    model = realistic(build())
    L1NormPruner(model, HALF).compress()
    kept, masked = shrink(model), shrink(model, constants="zero")
    assert masked.parameters[1] <= kept.parameters[1]
    assert masked.held == 0
    assert masked.moved > 0 == kept.moved
    assert masked.difference <= 1e-5


def test_exactly_the_masked_filters_go():
    model = keras.Sequential(
        [
            image(8),
            layers.Conv2D(4, 3, name="first"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    keep = np.array([True, False, True, False])
    mask = np.broadcast_to(keep, (3, 3, 3, 4))
    set_masks(model, {"first": {"kernel": mask, "bias": keep}})
    kernel = model.get_layer("first").kernel.numpy()
    head = model.get_layer("out").kernel.numpy()
    small = shrink(model).model
    np.testing.assert_array_equal(small.get_layer("first").kernel.numpy(), kernel[..., keep])
    np.testing.assert_array_equal(small.get_layer("out").kernel.numpy(), head[np.tile(keep, 36)])
    assert small.get_layer("first").filters == 2
    assert masks_of(small) == {}


def test_a_constant_moves_into_the_next_bias():
    model = keras.Sequential(
        [
            layers.Input((2,)),
            layers.Dense(2, activation="relu", name="first"),
            layers.Dense(1, use_bias=False, name="out"),
        ]
    )
    model.set_weights([np.eye(2), np.array([0.0, 3.0]), np.array([[1.0], [2.0]])])
    set_masks(model, {"first": {"kernel": np.array([[True, False], [True, False]])}})
    small = shrink(model).model
    assert small.get_layer("out").bias.numpy().tolist() == [6.0]
    assert small.get_layer("out").kernel.numpy().tolist() == [[1.0]]


def test_constants_that_reach_padded_borders_are_merged_into_one():
    model = realistic(sigmoid_and_padding())
    L1NormPruner(model, HALF).compress()
    report = shrink(model)
    first, second, _ = (w for w in report.model.layers if isinstance(w, layers.Conv2D))
    assert first.filters == 4 + 1
    assert second.filters == 6
    assert report.held == 1
    assert 'constants="zero"' in str(report)


def test_a_channel_that_nobody_reads_goes_too():
    model = keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, name="first"), layers.Dense(2, name="out")]
    )
    mask = np.ones((4, 2), bool)
    mask[1] = False
    set_masks(model, {"out": {"kernel": mask}})
    assert shrink(model).model.get_layer("first").units == 3


def test_masks_that_are_left_stay_in_force(zeros_hold):
    model = realistic(plain())
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
    L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    model.compile("adam", "mse")
    small = shrink(model).model
    assert small.compiled
    assert list(masks_of(small)) == ["out"]
    small.fit(np.ones((8, 12, 12, 3)), np.ones((8, 3)), verbose=0)
    zeros_hold(small)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_groups_of_a_convolution_go_as_wholes(padding):
    x = image()
    y = layers.Conv2D(8, 1, name="before")(x)
    y = layers.Conv2D(12, 3, groups=4, padding=padding, activation="relu", name="grouped")(y)
    model = realistic(ended(x, layers.Conv2D(6, 1, name="after")(y)))
    kernel = np.ones(model.get_layer("grouped").kernel.shape, bool)
    kernel[..., 3:7] = False  # all outputs of the second group, and one of the third
    set_masks(model, {"grouped": {"kernel": kernel}})
    report = shrink(model)
    small = {name: report.model.get_layer(name) for name in ("before", "grouped", "after")}
    assert (small["grouped"].groups, small["grouped"].filters) == (3, 9)
    assert small["before"].filters == 6
    assert small["after"].kernel.shape == (1, 1, 9, 6)
    assert report.unknown == {}
    assert_equal(model, report.model)


def test_channels_of_groups_are_chosen_as_wholes():
    x = image()
    y = layers.Conv2D(8, 1, name="before")(x)
    y = layers.Conv2D(12, 3, groups=4, name="grouped")(y)
    model = realistic(ended(x, layers.Conv2D(6, 1, name="after")(y)))
    L1NormPruner(model, HALF, mode="dependency_aware").compress()
    small = shrink(model).model
    assert (small.get_layer("grouped").groups, small.get_layer("before").filters) == (2, 4)


def test_slim_masks_make_small_models_too():
    model = realistic(padded())
    SlimPruner(model, [{"total_sparsity": 0.5, "op_types": ["default"]}]).compress()
    report = shrink(model)
    assert report.parameters[1] < 0.6 * report.parameters[0]
    assert_equal(model, report.model)


def test_masks_can_be_given_for_a_model_that_has_none(tmp_path):
    model = realistic(plain())
    pruner = L1NormPruner(keras.models.clone_model(model), HALF)
    _, masks = pruner.compress()
    pruner.save_masks(tmp_path / "masks.safetensors")
    for given in (masks, tmp_path / "masks.safetensors"):
        report = shrink(model, masks=given)
        assert report.parameters[1] < report.parameters[0]
        assert masks_of(model) == {}


def test_the_last_channel_of_a_layer_stays():
    model = realistic(plain())
    conv = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))
    set_masks(model, {conv.name: {"kernel": np.zeros(conv.kernel.shape, bool)}})
    with pytest.warns(PruneWarning, match="nothing of the input reaches it"):
        report = shrink(model)
    assert report.model.get_layer(conv.name).filters == 1
    assert_equal(model, report.model)


def test_weights_that_have_grown_back_are_named(cnn):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    kernel = cnn.get_layer("conv").kernel
    kernel.assign(kernel + 1)
    with pytest.raises(SpeedupError, match="'conv' 'kernel' is not zero .* call .*apply_masks"):
        shrink(cnn)
    apply_masks(cnn)
    assert shrink(cnn).difference <= 1e-5


def test_what_cannot_be_made_smaller_says_why(cnn):
    with pytest.warns(PruneWarning, match="Nothing was removed: nothing of 'cnn' is masked"):
        report = shrink(cnn)
    assert report.model is cnn
    assert report.parameters == (cnn.count_params(), cnn.count_params())
    LevelPruner(cnn, [{"sparsity": 0.5, "op_types": ["default"]}]).compress()
    with pytest.warns(PruneWarning, match="single weights that are masked cannot be taken out"):
        assert shrink(cnn).changes == ()


def test_zeros_that_nothing_masks_go_as_well(cnn):
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    expected = shrink(cnn).parameters
    assert shrink(unwrap(cnn)).parameters == expected


@pytest.mark.tensorflow("Keras has layers for text on TensorFlow only")
def test_words_are_made_up():
    x = layers.Input((1,), dtype="string")
    y = layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot")(x)
    model = keras.Model(x, layers.Dense(3, name="out")(layers.Dense(8)(y)))
    L1NormPruner(model, HALF).compress()
    assert shrink(model).difference <= 1e-5
    assert shrink(model, ops.convert_to_tensor([["a"], ["b"], ["c"]])).difference <= 1e-5


def test_a_network_of_keras_applications():
    model = realistic(
        keras.applications.MobileNetV2(
            alpha=0.35,
            weights=None,
            input_shape=(32, 32, 3),
            classes=10,
            classifier_activation=None,
        )
    )
    L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2D", "DepthwiseConv2D"]}]).compress()
    report = shrink(settled(model), constants="zero")
    assert report.parameters[1] < 0.6 * report.parameters[0]
    assert report.difference <= 1e-5
    assert report.unknown == {}
    assert depends_on_the_input(report.model)

"""Mask files, in the order of axes that every framework shares."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from prune_core import MaskError, MaskFileError
from prune_core.maskfile import MaskFile, read_mask_file, write_mask_file
from prune_tf import L1NormPruner, LevelPruner, load_masks, masks_of, save_masks, set_masks
from prune_tf.axes import from_torch, to_torch

RULES = [{"sparsity": 0.5, "op_types": ["default"]}]


def test_masks_come_back_as_they_were(cnn, tmp_path):
    pruner = LevelPruner(cnn, RULES)
    _, masks = pruner.compress()
    pruner.save_masks(tmp_path / "masks.safetensors")
    loaded = load_masks(tmp_path / "masks.safetensors", cnn)
    assert {k: set(v) for k, v in loaded.items()} == {k: set(v) for k, v in masks.items()}
    for layer, tensors in masks.items():
        for name, mask in tensors.items():
            np.testing.assert_array_equal(loaded[layer][name], mask)


def test_the_file_speaks_torch(cnn, tmp_path):
    pruner = LevelPruner(cnn, RULES)
    pruner.compress()
    pruner.save_masks(tmp_path / "masks.safetensors")
    content = read_mask_file(tmp_path / "masks.safetensors")
    shapes = {k: {n: m.shape for n, m in t.items()} for k, t in content.masks.items()}
    assert shapes == {
        "conv": {"weight": (8, 3, 3, 3), "bias": (8,)},
        "depthwise": {"weight": (16, 1, 3, 3), "bias": (16,)},
        "separable": {"weight": (4, 16, 1, 1), "bias": (4,)},
        "head": {"weight": (4, cnn.get_layer("head").kernel.shape[0]), "bias": (4,)},
    }
    assert content.algorithm == "LevelPruner"
    assert content.config["conv"]["sparsity"] == 0.5


def test_a_mask_made_for_torch_masks_the_same_filters(cnn, tmp_path):
    mask = np.ones((8, 3, 3, 3), bool)
    mask[[1, 5]] = False
    mask[0, 2, 1, 0] = False
    torch_file = MaskFile({"conv": {"weight": mask, "bias": mask[:, 0, 0, 0]}})
    write_mask_file(tmp_path / "torch.safetensors", torch_file)
    set_masks(cnn, load_masks(tmp_path / "torch.safetensors", cnn))
    kernel = cnn.get_layer("conv").kernel.numpy()
    assert not kernel[..., [1, 5]].any()
    assert kernel[1, 0, 2, 0] == 0
    assert (kernel == 0).sum() == 2 * 27 + 1


def test_names_can_be_mapped(tmp_path):
    backbone = keras.Sequential([layers.Input((4,)), layers.Dense(2, name="fc")], name="features")
    model = keras.Sequential([layers.Input((4,)), backbone])
    path = tmp_path / "masks.safetensors"
    mask = np.array([[True] * 4, [False] * 4])
    write_mask_file(path, MaskFile({"features.fc": {"weight": mask}}))
    np.testing.assert_array_equal(load_masks(path, model)["features/fc"]["kernel"], mask.T)
    write_mask_file(path, MaskFile({"0": {"weight": mask}}))
    found = load_masks(path, model, names={"0": "features/fc"})
    assert list(found) == ["features/fc"]
    with pytest.raises(MaskFileError, match="no layer '0'.*names="):
        load_masks(path, model)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(3),
        layers.Conv1D(3, 2),
        layers.Conv2D(4, (2, 3), groups=2),
        layers.Conv3D(3, (1, 2, 3)),
        layers.Conv2DTranspose(3, (2, 3)),
        layers.DepthwiseConv2D((2, 3), depth_multiplier=3),
        layers.SeparableConv1D(3, 2, depth_multiplier=2),
        layers.Embedding(5, 3),
        layers.BatchNormalization(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_axes_there_and_back(layer):
    rank = {"Conv1D": 1, "SeparableConv1D": 1, "Conv3D": 3, "Dense": 0, "Embedding": 0}
    layer.build((None, *[7] * rank.get(type(layer).__name__, 2), 4))
    for name in ("kernel", "depthwise_kernel", "pointwise_kernel", "embeddings", "gamma"):
        if hasattr(layer, name):
            array = np.random.default_rng(0).normal(size=getattr(layer, name).shape)
            there = to_torch(layer, name, array)
            np.testing.assert_array_equal(from_torch(layer, name, there), array)


def test_a_depthwise_channel_is_the_one_that_torch_means():
    layer = layers.DepthwiseConv2D(1, depth_multiplier=2, use_bias=False)
    layer.build((None, 4, 4, 3))
    kernel = to_torch(layer, "kernel", layer.kernel.numpy())
    x = np.ones((1, 1, 1, 3), "float32")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(x)).ravel(), kernel.ravel(), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"conv": {"weight": np.ones((3, 3, 3, 8), bool)}}, "written with output channels first"),
        ({"convo": {"weight": np.ones((8, 3, 3, 3), bool)}}, "Did you mean 'conv'"),
        ({"relu": {"weight": np.zeros(3, bool)}}, "ReLU 'relu' does not have"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(cnn, tmp_path, masks, message):
    write_mask_file(tmp_path / "masks.safetensors", MaskFile(masks))
    with pytest.raises(MaskFileError, match=message):
        load_masks(tmp_path / "masks.safetensors", cnn)
    assert masks_of(cnn) == {}


def test_a_bias_that_is_not_here_is_passed_over(tmp_path):
    model = keras.Sequential([layers.Input((2,)), layers.Dense(2, use_bias=False, name="fc")])
    content = {"fc": {"weight": np.eye(2, dtype=bool), "bias": np.array([True, False])}}
    write_mask_file(tmp_path / "masks.safetensors", MaskFile(content))
    assert list(load_masks(tmp_path / "masks.safetensors", model)["fc"]) == ["kernel"]


def test_masks_are_checked_before_they_are_written(cnn, tmp_path):
    with pytest.raises(MaskError):
        save_masks(tmp_path / "m", {"conv": {"kernel": np.ones(3)}}, cnn)
    with pytest.raises(MaskError, match=r"takes \(path, masks, model\), in that order"):
        save_masks(tmp_path / "m", cnn, {})
    assert not (tmp_path / "m").exists()


def test_a_pruner_takes_a_file(cnn, tmp_path, zeros_hold):
    pruner = L1NormPruner(cnn, RULES)
    pruner.compress()
    pruner.save_masks(tmp_path / "masks.safetensors")
    other = keras.models.clone_model(prune_free(cnn))
    L1NormPruner(other, RULES).load_masks(tmp_path / "masks.safetensors")
    zeros_hold(other)
    with pytest.raises(MaskError, match="not among the selected layers"):
        L1NormPruner(other, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).load_masks(
            tmp_path / "masks.safetensors"
        )


def prune_free(model):
    from prune_tf import unwrap

    return unwrap(model)


def test_an_exported_model_needs_nothing_but_keras(cnn, tmp_path, zeros_hold):
    pruner = LevelPruner(cnn, RULES)
    pruner.compress()
    pruner.export_model(tmp_path / "m.keras", tmp_path / "masks.safetensors")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert "Masked" not in loaded.to_json()
    assert (loaded.get_layer("conv").kernel.numpy() == 0).mean() == 0.5
    assert (tmp_path / "masks.safetensors").exists()
    zeros_hold(cnn)


def test_keras_says_what_a_masked_model_needs_to_be_loaded(cnn, tmp_path):
    """What Keras says of a class that it does not know ends with the config of that class."""
    LevelPruner(cnn, RULES).compress()
    cnn.save(tmp_path / "masked.keras")
    load = "import keras, sys; keras.models.load_model(sys.argv[1])"
    command = [sys.executable, "-c", load, str(tmp_path / "masked.keras")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "`import prune_tf` before loading it" in done.stderr.splitlines()[-1]
    command[2] = f"import keras, sys, prune_tf; {load}"
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0

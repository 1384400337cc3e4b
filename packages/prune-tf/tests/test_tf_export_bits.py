"""LiteRT files in fewer bits: smaller, read back, and still what the model computes."""

import keras
import numpy as np
import pytest
from keras import layers

from prune_core import ConfigError, PruneError
from prune_tf import export_model, prune, shrink
from prune_tf.litert import write_litert
from prune_tf.run_exported import read_litert

pytestmark = pytest.mark.tensorflow("TensorFlow writes this format")


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(32, 16, 16, 3)).astype("float32")


@pytest.fixture
def model():
    return keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(32, 3, activation="relu", name="a"),
            layers.Conv2D(64, 3, activation="relu", name="b"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(64, name="out"),
        ]
    )


def outputs_of(path, x):
    [found], _ = read_litert({"path": str(path), "names": []}, [x])
    return found


def test_fewer_bits_make_smaller_files_that_compute_the_same(model, images, tmp_path):
    prune(model, "l1", sparsity=0.5, exclude="out")
    small = shrink(model).model
    expected = small.predict(images, verbose=0)
    sizes = {"": export_model(small, tmp_path / "plain.tflite").stat().st_size}
    for how in ("float16", "dynamic_range", "int8"):
        data = {"representative_dataset": images} if how == "int8" else {}
        path = export_model(small, tmp_path / f"{how}.tflite", optimizations=how, **data)
        sizes[how] = path.stat().st_size
        gap = np.abs(outputs_of(path, images) - expected).max() / np.abs(expected).max()
        assert 0 < gap < {"float16": 1e-2, "dynamic_range": 0.05, "int8": 0.1}[how]
    assert sizes["float16"] < 0.75 * sizes[""]
    assert sizes["dynamic_range"] < 0.6 * sizes[""]
    assert sizes["int8"] < 0.6 * sizes[""]


def test_a_file_of_other_data_is_found_out(model, images, tmp_path):
    """Activations a thousand times as large as any that were shown are cut off."""
    with pytest.raises(PruneError, match="computes something else than the model"):
        export_model(
            model,
            tmp_path / "m.tflite",
            optimizations="int8",
            representative_dataset=images,
            example_inputs=1000 * images[:4],
        )
    assert not (tmp_path / "m.tflite").exists()


def _two_weights(kernel):
    kernel[0, 0, 0, 0], kernel[1, 1, 1, 1] = kernel[1, 1, 1, 1], kernel[0, 0, 0, 0]


def _one_filter(kernel):
    kernel[..., 3] *= 1.1


def _order(kernel):
    kernel[:] = kernel[..., np.random.default_rng(0).permutation(kernel.shape[-1])]


@pytest.mark.parametrize(
    ("how", "change"),
    [
        *(("int8", change) for change in (_two_weights, _one_filter, _order)),
        ("float16", _one_filter),
        ("dynamic_range", _two_weights),
    ],
)
def test_a_file_of_other_weights_is_found_out(model, images, tmp_path, monkeypatch, how, change):
    """The writer is made to err in one layer, where it rounds, and nowhere else."""

    def wrong(given, path, optimizations=None, data=None):
        kernel = given.get_layer("b").kernel
        right = np.array(kernel)
        if optimizations is not None:
            other = right.copy()
            change(other)
            kernel.assign(other)
        try:
            write_litert(given, path, optimizations, data)
        finally:
            kernel.assign(right)

    monkeypatch.setattr("prune_tf.export.write_litert", wrong)
    data = {"representative_dataset": images} if how == "int8" else {}
    with pytest.raises(PruneError, match="other weights .* off by .* steps of rounding"):
        export_model(model, tmp_path / "m.tflite", optimizations=how, **data)
    assert not (tmp_path / "m.tflite").exists()


def test_a_file_that_is_wrong_before_it_is_rounded_is_found_out(model, tmp_path, monkeypatch):
    def wrong(given, path, optimizations=None, data=None):
        other = keras.models.clone_model(given)
        other.set_weights(given.get_weights())
        other.get_layer("b").bias.assign_add(np.full(64, 0.01))
        write_litert(other, path, optimizations, data)

    monkeypatch.setattr("prune_tf.export.write_litert", wrong)
    with pytest.raises(PruneError, match="computes something else than the model"):
        export_model(model, tmp_path / "m.tflite", optimizations="dynamic_range")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.tflite", {"optimizations": "int4"}, "optimizations is 'int4'; it must be 'float16'"),
        ("m.tflite", {"optimizations": "int8"}, "needs representative_dataset"),
        ("m.keras", {"optimizations": "float16"}, "the format is 'keras'"),
        ("m.tflite", {"representative_dataset": 1}, "asked for with optimizations='int8' alone"),
        (
            "m.tflite",
            {"optimizations": "int8", "representative_dataset": np.ones((4, 2), "float32")},
            "cannot be run on representative_dataset",
        ),
        ("m.tflite", {"optimizations": "int8", "representative_dataset": []}, "no batch in it"),
    ],
)
def test_mistakes_are_named(model, tmp_path, name, options, message):
    with pytest.raises(ConfigError, match=message):
        export_model(model, tmp_path / name, **options)
    assert not (tmp_path / name).exists()

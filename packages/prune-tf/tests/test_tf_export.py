"""What is exported computes the same in a process that knows nothing of prune."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from prune_core import ConfigError, MissingDependencyError, PruneError, PruneWarning
from prune_tf import L1NormPruner, LevelPruner, export_model, gzipped_size, masks_of, shrink

READ = """
import sys
import numpy as np
kind, path, folder = sys.argv[1:]
x = np.load(folder + "/x.npy")
if kind == "keras":
    import keras
    y = keras.ops.convert_to_numpy(keras.models.load_model(path)(x))
elif kind == "saved_model":
    import tensorflow as tf
    loaded = tf.saved_model.load(path)
    y = loaded.serve(x)
elif kind == "litert":
    import tensorflow as tf
    interpreter = tf.lite.Interpreter(model_path=path)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
else:
    import onnxruntime
    session = onnxruntime.InferenceSession(path)
    [y] = session.run(None, {session.get_inputs()[0].name: x})
assert "prune_tf" not in sys.modules
np.save(folder + "/y.npy", np.asarray(y))
"""
ENDINGS = {"keras": "m.keras", "saved_model": "m", "litert": "m.tflite", "onnx": "m.onnx"}


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # Keras' exporter
@pytest.mark.parametrize(
    "kind",
    [
        "keras",
        pytest.param("saved_model", marks=pytest.mark.tensorflow),
        pytest.param("litert", marks=pytest.mark.tensorflow),
        pytest.param("onnx", marks=pytest.mark.tensorflow),
    ],
)
def test_round_trip_in_a_fresh_process(cnn, samples, tmp_path, kind, zeros_hold):
    if kind == "onnx":
        pytest.importorskip("tf2onnx", reason="ONNX comes with the extra prune-tf[onnx]")
        pytest.importorskip("onnxruntime", reason="reads the ONNX file back")
    L1NormPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D", "SeparableConv2D"]}]).compress()
    small = shrink(cnn).model
    path = export_model(small, tmp_path / ENDINGS[kind])
    x = samples[0][:4]
    np.save(tmp_path / "x.npy", x)
    subprocess.run(
        [sys.executable, "-c", READ, kind, str(path), str(tmp_path)],
        check=True,
        capture_output=True,
    )
    expected = keras.ops.convert_to_numpy(cnn(x))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-4, atol=1e-5)
    assert {p.name for p in tmp_path.iterdir()} == {"x.npy", "y.npy", path.name}
    zeros_hold(cnn)


@pytest.mark.tensorflow
def test_zeros_and_small_layers_make_small_files(tmp_path):
    x = keras.layers.Input((16, 16, 3))
    y = keras.layers.Conv2D(64, 3, activation="relu")(x)
    y = keras.layers.Conv2D(64, 3, activation="relu")(y)
    model = keras.Model(x, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(y)))
    dense = gzipped_size(export_model(model, tmp_path / "dense.tflite"))
    LevelPruner(model, [{"sparsity": 0.8, "op_types": ["Conv2D"]}]).compress()
    sparse = gzipped_size(export_model(model, tmp_path / "sparse.tflite"))
    L1NormPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    small = gzipped_size(export_model(shrink(model).model, tmp_path / "small.tflite"))
    assert sparse < 0.4 * dense
    assert small < 0.75 * sparse


def test_exporting_leaves_the_masks_on(cnn, tmp_path):
    LevelPruner(cnn, [{"sparsity": 0.5, "op_types": ["Conv2D"]}]).compress()
    export_model(cnn, tmp_path / "model.keras")
    assert set(masks_of(cnn)) == {"conv"}
    assert masks_of(keras.models.load_model(tmp_path / "model.keras")) == {}


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="says what other backends cannot do"
)
@pytest.mark.parametrize("ending", ["", ".tflite", ".onnx"])
def test_what_only_tensorflow_writes_says_so(cnn, tmp_path, ending):
    with pytest.raises(ConfigError, match="written by TensorFlow, and this is Keras on"):
        export_model(cnn, tmp_path / f"model{ending}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", [pytest.param("folder", marks=pytest.mark.tensorflow), "model.keras"]
)
def test_a_folder_that_is_no_model_is_left_alone(cnn, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is a folder that is no .* model, and would be replaced"):
        export_model(cnn, folder, "saved_model" if name == "folder" else None)
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("notes.txt", "mine")]


@pytest.mark.tensorflow
def test_a_model_replaces_a_model_but_no_file(cnn, tmp_path):
    for _ in range(2):
        export_model(cnn, tmp_path / "model")
        export_model(cnn, tmp_path / "model.tflite")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file that is no saved_model model"):
        export_model(cnn, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_keras_cannot_copy_is_written_all_the_same(tmp_path):
    def mean_square(y, predicted):
        return keras.ops.mean(keras.ops.square(predicted), axis=-1)

    x = keras.layers.Input((4,))
    y = keras.layers.Lambda(lambda y: 2 * y)(keras.layers.Dense(6, name="fc")(x))
    model = keras.Model(x, y)
    model.compile("sgd", mean_square)
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
    with pytest.warns(PruneWarning, match="not compiled"):
        export_model(model, tmp_path / "model.keras")
    assert set(masks_of(model)) == {"fc"}
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    assert masks_of(loaded) == {}
    samples = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(*(m.predict(samples, verbose=0) for m in (model, loaded)))


class Doubled(keras.Model):
    """Functional, but for what it makes of it."""

    def __init__(self, **how):
        x = keras.layers.Input((4,))
        super().__init__(x, keras.layers.Dense(3)(x), name="doubled")

    def call(self, x, training=None):
        return 2 * super().call(x, training=training)

    def get_config(self):
        return {}


def test_a_functional_model_that_computes_otherwise_is_written_as_it_computes(tmp_path):
    model = Doubled()
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
    export_model(model, tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", {"Doubled": Doubled})
    samples = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(*(m.predict(samples, verbose=0) for m in (model, loaded)))


def test_something_else_than_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="model is a builtins.str; it must be a Keras 3 model"):
        export_model("model", tmp_path / "model.keras")


def test_an_unknown_ending_is_refused(cnn, tmp_path):
    with pytest.raises(ConfigError, match="must be one of keras, saved_model, litert, onnx"):
        export_model(cnn, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.tensorflow
def test_what_onnx_needs_is_named(cnn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(MissingDependencyError, match=r"prune-tf\[onnx\]"):
        export_model(cnn, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # Keras' exporter
@pytest.mark.tensorflow
def test_an_onnx_file_that_nobody_could_read_is_not_written(tmp_path):
    pytest.importorskip("tf2onnx", reason="pip install 'prune-tf[onnx]'")
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(4, activation="gelu", name="fc")]
    )
    with pytest.raises(PruneError, match="cannot write .* as ONNX: No Op registered for Erfc"):
        export_model(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []

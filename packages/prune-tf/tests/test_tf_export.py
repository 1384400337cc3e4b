"""What is exported computes the same in a process that knows nothing of prune."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from prune_core import ConfigError, MissingDependencyError, PruneError, PruneWarning
from prune_tf import L1NormPruner, LevelPruner, export_model, gzipped_size, masks_of, shrink
from prune_tf.inputs import made_up_inputs

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
        pytest.param("saved_model", marks=pytest.mark.tensorflow("TensorFlow writes this format")),
        pytest.param("litert", marks=pytest.mark.tensorflow("TensorFlow writes this format")),
        pytest.param("onnx", marks=pytest.mark.tensorflow("TensorFlow writes this format")),
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


@pytest.mark.tensorflow("TensorFlow writes this format")
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
    "name",
    [
        pytest.param("folder", marks=pytest.mark.tensorflow("TensorFlow writes this format")),
        "model.keras",
    ],
)
def test_a_folder_that_is_no_model_is_left_alone(cnn, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is a folder that is no .* model, and would be replaced"):
        export_model(cnn, folder, "saved_model" if name == "folder" else None)
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("notes.txt", "mine")]


@pytest.mark.tensorflow("TensorFlow writes this format")
def test_a_model_replaces_a_model_but_no_file(cnn, tmp_path):
    for _ in range(2):
        export_model(cnn, tmp_path / "model")
        export_model(cnn, tmp_path / "model.tflite")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file that is no saved_model model"):
        export_model(cnn, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_function_that_it_was_compiled_with_is_left_out_with_a_warning(tmp_path):
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
    assert model.compiled
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


@pytest.mark.tensorflow("TensorFlow writes this format")
def test_what_onnx_needs_is_named(cnn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(MissingDependencyError, match=r"prune-tf\[onnx\]"):
        export_model(cnn, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # Keras' exporter
@pytest.mark.tensorflow("TensorFlow writes this format")
def test_an_onnx_file_that_nobody_could_read_is_not_written(tmp_path):
    pytest.importorskip("tf2onnx", reason="pip install 'prune-tf[onnx]'")
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(4, activation="gelu", name="fc")]
    )
    with pytest.raises(PruneError, match="cannot write .* as ONNX: No Op registered for Erfc"):
        export_model(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class Backbone(keras.Model):
    """Its attributes are set before its graph is known, and in another order than that."""

    def __init__(self, **how):
        first, second = keras.layers.Dense(6, name="b"), keras.layers.Dense(6, name="a")
        self.later, self.sooner = second, first
        x = keras.layers.Input((6,))
        super().__init__(x, second(keras.ops.tanh(first(x))), **how)

    def get_config(self):
        return {"name": self.name}


def adapted():
    norm = keras.layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3.0, 50.0, size=(64, 6)).astype("float32"))
    return keras.Sequential([keras.layers.Input((6,)), norm, keras.layers.Dense(4, name="fc")])


def words(layer):
    layer.adapt(["some words", "some other words"])
    x = keras.layers.Input((1,), dtype="string")
    y = keras.layers.Dense(4, name="fc")(keras.ops.cast(layer(x), "float32"))
    return keras.Model(x, y)


@pytest.mark.parametrize(
    "build",
    [
        adapted,
        pytest.param(
            Backbone,
            marks=pytest.mark.skipif(
                keras.backend.backend() == "torch",
                reason="Keras with torch takes no attributes before super().__init__()",
            ),
        ),
        pytest.param(
            lambda: words(keras.layers.StringLookup(output_mode="multi_hot")),
            marks=pytest.mark.tensorflow("Keras has layers for text on TensorFlow only"),
            id="StringLookup",
        ),
        pytest.param(
            lambda: words(keras.layers.TextVectorization(output_mode="multi_hot")),
            marks=pytest.mark.tensorflow("Keras has layers for text on TensorFlow only"),
            id="TextVectorization",
        ),
    ],
)
def test_state_that_no_config_tells_of_is_written_too(build, tmp_path):
    model = build()
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 3)
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
    export_model(model, tmp_path / "model.keras")
    with keras.saving.custom_object_scope({"Backbone": Backbone}):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    x = made_up_inputs(model, batch=3)
    np.testing.assert_array_equal(*(m.predict(x, verbose=0) for m in (model, loaded)))


@pytest.mark.tensorflow("TensorFlow writes this format")
@pytest.mark.parametrize("ending", ["", ".tflite"])
@pytest.mark.parametrize("build", [adapted, Backbone])
def test_all_formats_have_it(build, ending, tmp_path):
    model = build()
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
    before = [np.array(w) for w in model.get_weights()]
    assert export_model(model, tmp_path / f"model{ending}").exists()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@keras.saving.register_keras_serializable()
def relu_of_mine(x):
    return keras.ops.maximum(x, -1.0)


def test_a_function_that_is_written_as_keras_own_is_found_out(tmp_path):
    def relu(x):
        return keras.ops.maximum(x, -1.0)

    def model(activation):
        return keras.Sequential(
            [keras.layers.Input((6,)), keras.layers.Dense(8, activation=activation)]
        )

    with pytest.raises(PruneError, match=r"computes something else.*by a name of Keras' is"):
        export_model(model(relu), tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []
    export_model(model(relu_of_mine), tmp_path / "model.keras")
    export_model(model(relu), tmp_path / "model.keras", verify=False)


def test_what_is_masked_is_zero_in_the_file_whatever_the_weights_are_by_now(tmp_path):
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(8, name="fc")])
    LevelPruner(model, [{"sparsity": 0.5, "op_types": ["Dense"]}]).compress()
    ones = np.ones((6, 8), "float32")
    model.layers[0].kernel.assign(ones)
    export_model(model, tmp_path / "model.keras")
    np.testing.assert_array_equal(model.get_weights()[0], ones)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], masks_of(model)["fc"]["kernel"])


@pytest.mark.tensorflow("TensorFlow writes this format")
def test_inputs_by_name_and_outputs_by_name(tmp_path):
    inputs = {name: keras.layers.Input((size,), name=name) for name, size in (("b", 3), ("a", 4))}
    joined = keras.layers.Concatenate()([inputs["b"], inputs["a"]])
    outputs = {name: keras.layers.Dense(n, name=name)(joined) for name, n in (("z", 2), ("y", 3))}
    model = keras.Model(inputs, outputs)
    for ending in (".keras", "", ".tflite"):
        export_model(model, tmp_path / f"model{ending}")


def test_a_model_that_cannot_be_run_says_what_to_do(tmp_path):
    class Picky(keras.Model):
        def call(self, x, training=None):
            raise ValueError("only on Sundays")

    model = Picky()
    model.built = True
    with pytest.raises(ConfigError, match="says nothing of its inputs.*example_inputs="):
        export_model(model, tmp_path / "model.keras")
    with pytest.raises(ConfigError, match=r"run on example_inputs of the shape \(1, 3\)"):
        export_model(adapted(), tmp_path / "model.keras", example_inputs=np.ones((1, 3)))

"""Read an exported file back and run it, in a process that has nothing but the file.

This is a script: `python run_exported.py FOLDER`, started by `prune_tf.readback`. It must import
nothing of this package, so that what it reads is known to need nothing of it. The folder holds

    inputs.npz      the inputs, flat: "0", "1", …
    request.json    kind, path, the inputs' structure and names, modules to import

and gets outputs.npz, and notes.json with what else there is to say.
"""

import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Read = tuple[list[Array], dict[str, Any]]


def main(folder: str) -> None:
    """Answer the request in a folder."""
    request = json.loads(Path(folder, "request.json").read_text(encoding="utf-8"))
    arrays = load_arrays(Path(folder, "inputs.npz"))
    outputs, notes = READERS[request["kind"]](request, arrays)
    save_arrays(Path(folder, "outputs.npz"), outputs)
    Path(folder, "notes.json").write_text(json.dumps(notes), encoding="utf-8")


def save_arrays(path: Path, arrays: Sequence[Array]) -> None:
    """Write arrays to a file, in order."""
    named: dict[str, Any] = {str(at): array for at, array in enumerate(arrays)}
    np.savez(path, **named)


def load_arrays(path: Path) -> list[Array]:
    """Read what `save_arrays` wrote."""
    with np.load(path) as stored:
        return [stored[str(at)] for at in range(len(stored.files))]


def structured(structure: Any, arrays: Sequence[Any]) -> Any:
    """Put flat arrays into the structure of dicts and lists that a model takes."""
    if isinstance(structure, dict):
        return {key: structured(value, arrays) for key, value in structure.items()}
    if isinstance(structure, list):
        return [structured(value, arrays) for value in structure]
    return arrays[structure]


def flat_arrays(outputs: Any) -> list[Array]:
    """Return all tensors of a structure as arrays that numpy knows."""
    import keras

    found = []
    for tensor in keras.tree.flatten(outputs):
        if keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":
            tensor = keras.ops.cast(tensor, "float32")
        found.append(np.asarray(keras.ops.convert_to_numpy(tensor)))
    return found


def read_keras(request: dict[str, Any], arrays: list[Array]) -> Read:
    """Load a `.keras` file, with what it was compiled with if that can be."""
    import keras

    known = {}
    for module, name in request["objects"]:
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        known[found.__name__] = found
    notes = {}
    options = {"custom_objects": known, "safe_mode": False}
    try:
        model = keras.models.load_model(request["path"], **options)
    except Exception as error:
        model = keras.models.load_model(request["path"], compile=False, **options)
        notes["not compiled"] = f"{type(error).__name__}: {error}"
    inputs = [keras.ops.convert_to_tensor(a.tolist() if a.dtype.kind == "U" else a) for a in arrays]
    return flat_arrays(model(structured(request["structure"], inputs), training=False)), notes


def read_saved_model(request: dict[str, Any], arrays: list[Array]) -> Read:
    """Load a SavedModel with TensorFlow alone."""
    import tensorflow as tf

    inputs = [tf.constant(a.tolist() if a.dtype.kind == "U" else a) for a in arrays]
    loaded = tf.saved_model.load(request["path"])
    outputs = tf.nest.flatten(loaded.serve(structured(request["structure"], inputs)))
    return [
        np.asarray(tf.cast(y, tf.float32) if y.dtype == tf.bfloat16 else y) for y in outputs
    ], {}


def read_litert(request: dict[str, Any], arrays: list[Array]) -> Read:
    """Run a LiteRT file with TensorFlow's interpreter."""
    import warnings

    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow tells of a successor
        interpreter = tf.lite.Interpreter(model_path=request["path"])
    details = interpreter.get_input_details()
    order = paired([d["name"] for d in details], request["names"])
    for detail, at in zip(details, order, strict=True):
        interpreter.resize_tensor_input(detail["index"], arrays[at].shape)
    interpreter.allocate_tensors()
    for detail, at in zip(interpreter.get_input_details(), order, strict=True):
        interpreter.set_tensor(detail["index"], as_stored(arrays[at], detail))
    interpreter.invoke()
    found = interpreter.get_output_details()
    return [as_read(interpreter.get_tensor(d["index"]), d) for d in found], {}


def as_stored(array: Array, detail: dict[str, Any]) -> Array:
    """Quantize an input if the file takes it quantized."""
    scale, zero = detail["quantization"]
    if scale and array.dtype.kind == "f" and np.dtype(detail["dtype"]).kind in "iu":
        limits = np.iinfo(detail["dtype"])
        array = np.clip(np.round(array / scale + zero), limits.min, limits.max)
    return array.astype(detail["dtype"])


def as_read(array: Array, detail: dict[str, Any]) -> Array:
    """Undo the quantization of an output."""
    scale, zero = detail["quantization"]
    if scale and array.dtype.kind in "iu":
        return np.asarray((array.astype("float32") - zero) * scale)
    return array


def read_onnx(request: dict[str, Any], arrays: list[Array]) -> Read:
    """Run an ONNX file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(request["path"])
    names = [each.name for each in session.get_inputs()]
    order = paired(names, request["names"])
    return session.run(None, {name: arrays[at] for name, at in zip(names, order, strict=True)}), {}


def paired(found: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return for each input of a file which of the model's it is, by name, or else in order."""
    order = []
    for each in found:
        fits = [at for at, name in enumerate(names) if name in each.split(":")[0]]
        # The longest name that is part of it: "serving_default_token_ids:0" is no "ids".
        order.append(max(fits, key=lambda at: len(names[at]), default=-1))
    return order if sorted(order) == list(range(len(found))) else list(range(len(found)))


READERS: dict[str, Callable[[dict[str, Any], list[Array]], Read]] = {
    "keras": read_keras,
    "saved_model": read_saved_model,
    "litert": read_litert,
    "onnx": read_onnx,
}

if __name__ == "__main__":
    main(sys.argv[1])

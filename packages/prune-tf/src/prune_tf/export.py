"""Models as files that need nothing of prune."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import keras

from prune_core.compressed import model_of
from prune_core.errors import ConfigError, MissingDependencyError, PruneError, warn
from prune_core.maskfile import as_path
from prune_core.options import check_flags
from prune_tf.fewer_bits import check_weights
from prune_tf.inputs import check_inputs, made_up_inputs
from prune_tf.litert import ALLOWED as LOOSER
from prune_tf.litert import check_optimizations, example_of, write_litert
from prune_tf.masks import plain
from prune_tf.readback import check_file

__all__ = ["export_model", "gzipped_size"]


def export_model(
    model: keras.Model,
    path: str | PathLike[str],
    format: str | None = None,  # noqa: A002
    *,
    example_inputs: Any = None,
    verify: bool = True,
    optimizations: str | None = None,
    representative_dataset: Any = None,
) -> Path:
    """Write a model with zeros where it is masked, and without the masks themselves.

    The masks are taken off for the moment, Keras' own writer writes what is left, and they are put
    on again: nothing is copied. The file is then read back by a fresh process that knows nothing of
    prune, and has to compute what the model does; it appears whole or not at all.

    Args:
        model: A built model.
        path: The file or folder.
        format: `"keras"`, `"saved_model"`, `"litert"` or `"onnx"`; by the path's ending unless
            given: `.keras`, `.tflite`, `.onnx`, and a SavedModel for a path without an ending.
        example_inputs: What the file and the model are compared on; random numbers, or words,
            unless given.
        verify: Read the file back and compare.
        optimizations: For LiteRT, how to write fewer bits: `"float16"` halves the weights,
            `"dynamic_range"` writes them in int8, and `"int8"` has activations in int8 as well.
            A file in full precision has to compute the same, each weight has to be within half a
            step of the one in that, and outputs may move by what rounding does.
        representative_dataset: Inputs of the model for `"int8"`: an array, or batches as `data=` of
            a pruner takes them. The file is compared on the first batch of it.

    Raises:
        ConfigError: When the format is unknown or cannot be told from the path, the backend of
            Keras cannot write it, or what is at the path already is no such model.
        MissingDependencyError: When ONNX is asked for and tf2onnx is not installed.
        PruneError: When the writer cannot write the model, or the file does not compute the same.
    """
    model = model_of(model)
    if not isinstance(model, keras.Model):
        raise ConfigError(
            f"model is a {type(model).__module__}.{type(model).__name__}; it must be a Keras 3 "
            "model (keras.Model)."
        )
    check_flags(verify=verify)
    path = as_path(path)
    kind = format or ENDINGS.get(path.suffix)
    if kind not in WRITERS:
        raise ConfigError(
            f"The format of {str(path)!r} is {kind!r}; it must be one of "
            f"{', '.join(WRITERS)}. Say format=..., or let the path end in .keras, .tflite or "
            ".onnx."
        )
    _check_backend(kind)
    check_optimizations(kind, optimizations, representative_dataset)
    if representative_dataset is not None and example_inputs is None:
        example_inputs = example_of(model, representative_dataset)
    writers = WRITERS | {
        "litert": partial(write_litert, optimizations=optimizations, data=representative_dataset)
    }
    _check_replaceable(path, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
        plain(model),
    ):
        written = Path(folder) / f"model{_ending(kind)}"
        if verify and example_inputs is None:
            example_inputs = made_up_inputs(model)
        elif verify:
            check_inputs(model, example_inputs)
        _write(model, written, kind, writers[kind])
        if verify and optimizations is not None:
            plainly = Path(folder) / "plain.tflite"
            _write(model, plainly, kind, write_litert)
            check_file(model, plainly, kind, example_inputs)
            check_weights(plainly, written, model.name)
            looser = LOOSER[optimizations]
            check_file(model, written, kind, example_inputs, looser, on_average=True)
        elif verify:
            not_compiled = check_file(model, written, kind, example_inputs)
            if not_compiled:
                _write_uncompiled(model, written, not_compiled)
        if path.is_dir():
            shutil.rmtree(path)
        written.replace(path)
    return path


Writer = Callable[[keras.Model, Path], None]


def _write(model: keras.Model, path: Path, kind: str, write: Writer) -> None:
    try:
        write(model, path)
    except PruneError:
        raise
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise PruneError(
            f"{model.name!r} cannot be written as {kind}: {said[0]} Choose another format, or "
            "replace the layer that needs it."
        ) from error


def _write_uncompiled(model: keras.Model, path: Path, why: str) -> None:
    """Write a `.keras` file anew without what the model was compiled with, and warn of that."""
    model.compiled = False
    try:
        model.save(path)
    finally:
        model.compiled = True
    warn(
        f"The file of {model.name!r} is not compiled; call compile() on what is loaded before it "
        f"is trained on. Something that the model was compiled with cannot be read back: {why}"
    )


def _check_replaceable(path: Path, kind: str) -> None:
    """Refuse to put a model where something else is; a folder may hold all that a user has."""
    if not path.exists():
        return
    if kind != "saved_model":
        fits = path.is_file()
    else:
        fits = path.is_dir() and ((path / "saved_model.pb").exists() or not any(path.iterdir()))
    if not fits:
        found = "a folder" if path.is_dir() else "a file"
        raise ConfigError(
            f"{str(path)!r} is {found} that is no {kind} model, and would be replaced. Choose "
            "another path, or remove it first."
        )


def _check_backend(kind: str) -> None:
    backend = keras.backend.backend()
    if kind in NEED_TENSORFLOW and backend != "tensorflow":
        raise ConfigError(
            f"The format {kind!r} is written by TensorFlow, and this is Keras on {backend}. Write "
            "the model to a .keras file, and export what keras.models.load_model makes of it "
            "where KERAS_BACKEND=tensorflow is set."
        )


def gzipped_size(path: str | PathLike[str]) -> int:
    """Return how many bytes a file, or all files of a folder, take after gzip.

    Args:
        path: The file or the folder.
    """
    path = as_path(path)
    if not path.exists():
        raise ConfigError(f"There is no file or folder {str(path)!r}.")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return sum(len(gzip.compress(file.read_bytes(), mtime=0)) for file in files)


def _keras(model: keras.Model, path: Path) -> None:
    model.save(path)


def _saved_model(model: keras.Model, path: Path) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


def _onnx(model: keras.Model, path: Path) -> None:
    try:
        import onnx
        import tf2onnx  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "ONNX needs tf2onnx: `pip install 'prune-tf[onnx]'`."
        ) from None
    made_up_inputs(model, batch=1)  # Keras exports only what has been called.
    model.export(path, format="onnx", verbose=False)
    try:
        # What tf2onnx has no operator for, it writes as TensorFlow calls it, and only logs that.
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        raise PruneError(
            f"tf2onnx cannot write {model.name!r} as ONNX: {str(error).strip()} Choose another "
            "format, or replace the layer that needs it."
        ) from error


ENDINGS = {".keras": "keras", ".tflite": "litert", ".onnx": "onnx", "": "saved_model"}
WRITERS: dict[str, Writer] = {
    "keras": _keras,
    "saved_model": _saved_model,
    "litert": write_litert,
    "onnx": _onnx,
}
NEED_TENSORFLOW = ("saved_model", "litert", "onnx")


def _ending(kind: str) -> str:
    return next(ending for ending, name in ENDINGS.items() if name == kind)

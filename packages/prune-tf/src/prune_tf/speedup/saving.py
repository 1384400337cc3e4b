"""Small models in files, to and from them in any process."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any

import keras

from prune_core.compressed import model_of
from prune_core.errors import SpeedupError, did_you_mean
from prune_core.maskfile import as_path
from prune_tf.speedup.shaping import own_classes

__all__ = ["load_pruned", "save_pruned"]

_ENDING = ".keras"


def save_pruned(model: keras.Model, path: str | PathLike[str]) -> None:
    """Write a small model to a `.keras` file, from which `load_pruned` brings it back.

    Args:
        model: A model that `shrink` has made, trained since or not.
        path: The file; it ends in `.keras`.

    Raises:
        SpeedupError: It cannot be written.
    """
    model = model_of(model)
    if not isinstance(model, keras.Model):
        raise SpeedupError(
            f"model is a {type(model).__name__}; save_pruned(model, path) writes a Keras model."
        )
    path = as_path(path)
    if path.suffix != _ENDING:
        raise SpeedupError(
            f"path is {str(path)!r}; the file of a small Keras model ends in {_ENDING!r}. For "
            "other formats there is prune_tf.export_model(model, path)."
        )
    model.save(path)


def load_pruned(
    model: keras.Model | str | PathLike[str],
    path: str | PathLike[str] | None = None,
    **options: Any,
) -> keras.Model:
    """Return the model of a file, with the sizes and the masks that it was saved with.

    A file of Keras holds what builds the model, so that `load_pruned(path)` is enough. With a dense
    model before the path, as for torch, its classes are known while the file is read, registered or
    not; that model itself stays as it is, because layers of Keras cannot change their shapes.

    Args:
        model: The path, or a dense model of the same layers.
        path: Written by `save_pruned`, by `SpeedupReport.save`, or by `model.save`.
        options: For `keras.models.load_model`, such as `custom_objects=` and `compile=`.

    Raises:
        SpeedupError: The file is missing or damaged, of another model, or names a class that is not
            known here.
    """
    dense = model if isinstance(model, keras.Model) else None
    if dense is not None:
        options = options | {
            "custom_objects": own_classes(dense) | options.get("custom_objects", {})
        }
    place = path if dense is not None else model
    if not isinstance(place, str | PathLike) or (dense is None and path is not None):
        raise SpeedupError(
            "load_pruned takes the path of a file, load_pruned(path), or a dense model before it, "
            "load_pruned(model, path)."
        )
    file = Path(fspath(place))
    if not file.exists():
        there = [each.name for each in file.parent.glob(f"*{_ENDING}")]
        raise SpeedupError(f"{file} does not exist.{did_you_mean(file.name, there)}")
    try:
        found = keras.models.load_model(file, **options)
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise SpeedupError(f"{file} cannot be read as a Keras model: {error}") from error
    if dense is not None and _names(dense) != _names(found):
        odd = next(iter(_names(dense) ^ _names(found)))
        raise SpeedupError(
            f"{file} is of another model than {dense.name!r}: only one of them has a layer {odd!r}."
        )
    return found


def _names(model: keras.Model) -> set[str]:
    return {layer.name for layer in model.layers if layer.weights}

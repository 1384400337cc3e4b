"""Small models in files, to and from them in any process."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any

import keras

from prune_core.compressed import model_of
from prune_core.errors import SpeedupError, did_you_mean

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
    if Path(fspath(path)).suffix != _ENDING:
        raise SpeedupError(
            f"path is {fspath(path)!r}; the file of a small Keras model ends in {_ENDING!r}. For "
            "other formats there is prune_tf.export_model(model, path)."
        )
    model.save(path)


def load_pruned(path: str | PathLike[str], **options: Any) -> keras.Model:
    """Return the model of a file, with the sizes and the masks that it was saved with.

    A torch model cannot be built from a file, so that `prune_core.load_pruned(model, path)` fills
    one that is there; a file of Keras holds what builds the model.

    Args:
        path: Written by `save_pruned`, by `SpeedupReport.save`, or by `model.save`.
        options: For `keras.models.load_model`, such as `custom_objects=` and `compile=`.

    Raises:
        SpeedupError: The file is missing or damaged, or a class of its own is not known here.
    """
    if isinstance(path, keras.Model):
        raise SpeedupError(
            "load_pruned(path) takes a path and returns a model: a .keras file holds what builds "
            "it, so that no dense model is needed."
        )
    if not Path(fspath(path)).exists():
        there = [each.name for each in Path(fspath(path)).parent.glob(f"*{_ENDING}")]
        raise SpeedupError(
            f"{fspath(path)} does not exist.{did_you_mean(Path(fspath(path)).name, there)}"
        )
    try:
        return keras.models.load_model(path, **options)
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise SpeedupError(f"{fspath(path)} cannot be read as a small model: {error}") from error

"""LiteRT files, with weights and activations in fewer bits if wanted."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from prune_core.errors import ConfigError, did_you_mean
from prune_tf.arrays import array_of
from prune_tf.inputs import check_inputs
from prune_tf.pruning.batches import batches_of

__all__ = ["ALLOWED", "check_optimizations", "example_of", "write_litert"]

ALLOWED = {"float16": 5e-3, "dynamic_range": 5e-2, "int8": 2e-1}
"""Ways to write fewer bits, and how far outputs may move by them on average.

What that leaves undecided, weights decide: see `fewer_bits`. Of activations in int8, convolutions
move outputs by one or two hundredths, and the softmax of attention by a tenth.
"""
_SAMPLES = 100
"""How many samples are looked at to see how large activations become."""


def check_optimizations(kind: str, optimizations: str | None, data: Any) -> None:
    """Refuse what a format or a way of writing it cannot do."""
    if optimizations is None:
        if data is not None:
            raise ConfigError(
                "representative_dataset shows how large activations become, which is asked for "
                "with optimizations='int8' alone."
            )
        return
    if optimizations not in ALLOWED:
        raise ConfigError(
            f"optimizations is {optimizations!r}; it must be 'float16', which halves the weights, "
            "'dynamic_range', which makes weights int8, or 'int8', which makes activations int8 as "
            f"well.{did_you_mean(optimizations, ALLOWED)}"
        )
    if kind != "litert":
        raise ConfigError(
            f"optimizations is {optimizations!r} and the format is {kind!r}; TensorFlow writes "
            "fewer bits to LiteRT files only, whose path ends in .tflite."
        )
    if optimizations == "int8" and data is None:
        raise ConfigError(
            "optimizations='int8' needs representative_dataset=..., some inputs of the model: an "
            "array, or batches of inputs, from which it is seen how large activations become."
        )


def example_of(model: keras.Model, data: Any) -> Any:
    """Return a batch of representative data, on which the file can be compared.

    Raises:
        ConfigError: There is none, or the model does not run on it.
    """
    for batch in batches_of(data, 1):
        check_inputs(model, batch[0], "representative_dataset")
        return batch[0]
    raise ConfigError("representative_dataset has no batch in it.")


def write_litert(
    model: keras.Model, path: Path, optimizations: str | None = None, data: Any = None
) -> None:
    """Write a LiteRT file.

    Args:
        model: The model.
        path: The file.
        optimizations: One of `ALLOWED`.
        data: Inputs, for `"int8"`.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        # By way of a SavedModel, because Keras' exporter takes inputs of any structure.
        model.export(folder, format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if optimizations is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if optimizations == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if optimizations == "int8":
            converter.representative_dataset = lambda: _samples(data)
            # Inputs and outputs stay as they are; where an operator has no int8, it stays as well.
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                tf.lite.OpsSet.TFLITE_BUILTINS,
            ]
        with contextlib.redirect_stdout(io.StringIO()):  # It announces temporary files.
            path.write_bytes(converter.convert())


def _samples(data: Any) -> Iterator[list[np.ndarray[Any, Any]]]:
    """Yield inputs of one sample, flat."""
    left = _SAMPLES
    for inputs, *_ in batches_of(data, None):
        flat = [array_of(each) for each in keras.tree.flatten(inputs)]
        for at in range(min(left, len(flat[0]))):
            yield [each[at : at + 1] for each in flat]
        left -= len(flat[0])
        if left <= 0:
            return

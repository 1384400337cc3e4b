"""Inputs to run a model on, made up from what the model says that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from prune_core.errors import ConfigError
from prune_tf.arrays import array_of

__all__ = [
    "check_inputs",
    "made_up_inputs",
    "outputs_of",
    "random_input",
    "run",
    "symbolic_inputs",
]

SIZES = (64, 32, 16, 8, 4, 2, 1)
"""For an axis of any size: images survive five halvings, and tables of positions may be short."""

WORDS = ("a", "b", "some words", "some other words", "1", "2")


def made_up_inputs(model: keras.Model, batch: int = 2, *, trial: bool = True) -> Any:
    """Return random inputs that a model runs on, in the form that it takes them in.

    Args:
        model: The model.
        batch: How many samples there are.
        trial: Whether to run the model even where there is nothing to choose from, because it
            takes inputs of one size.

    Raises:
        ConfigError: When nothing that can be made up fits.
    """
    errors, odd = [], []
    candidates = [*_candidates(model, batch)]
    if len(candidates) == 1 and not trial:
        return candidates[0]
    for inputs in candidates:
        try:
            outputs = run(model, inputs)
        except Exception as error:  # whatever a model's own Python raises
            errors.append(error)
        else:
            if all(np.isfinite(each).all() for each in outputs if each.dtype.kind == "f"):
                return inputs
            odd.append(inputs)  # on JAX, what lies behind the end of a table is no number
    if odd:
        return odd[0]
    raise ConfigError(_nothing_fits(model, errors[0] if errors else None))


def outputs_of(model: keras.Model, inputs: Any) -> list[np.ndarray[Any, Any]]:
    """Return what a model puts out on inputs that may have been made up without a trial.

    Args:
        model: The model.
        inputs: A batch.

    Raises:
        ConfigError: When it does not run on them.
    """
    try:
        return run(model, inputs)
    except Exception as error:  # whatever a model's own Python raises
        raise ConfigError(_nothing_fits(model, error)) from error


def _nothing_fits(model: keras.Model, error: Exception | None) -> str:
    first = str(error).strip().splitlines()[0] if error else "it says nothing of its inputs"
    return (
        f"{model.name!r} does not run on inputs that were made up ({first}). Give some of your "
        "own: example_inputs=..., as model(...) takes them."
    )


def check_inputs(model: keras.Model, inputs: Any, argument: str = "example_inputs") -> None:
    """Run a model on inputs, and refuse those that it does not run on.

    Args:
        model: The model.
        inputs: A batch, as the model takes it.
        argument: Where the user gave it.

    Raises:
        ConfigError: Saying what it takes.
    """
    given = keras.tree.map_structure(lambda x: tuple(getattr(x, "shape", ())), inputs)
    try:
        known = getattr(model, "inputs", None)
        if known and len(keras.tree.flatten(inputs)) > len(known):
            raise ValueError("there are more of them than the model takes")
        run(model, inputs)
    except Exception as error:  # whatever a model's own Python raises
        if isinstance(inputs, Mapping) and any(isinstance(v, Mapping) for v in inputs.values()):
            raise ConfigError(
                f"{argument} looks like masks; write shrink(model, masks=...)."
            ) from error
        wanted = ", ".join(str(tuple(t.shape)) for t in getattr(model, "inputs", None) or ())
        raise ConfigError(
            f"{model.name!r} cannot be run on {argument} of the shape {given}"
            + (f"; it takes {wanted}." if wanted else f": {error}.")
            + (" Leave them out to run it on random numbers." * (argument == "example_inputs"))
        ) from error


def run(model: keras.Model, inputs: Any) -> list[np.ndarray[Any, Any]]:
    """Return what a model puts out at inference, as a flat list of arrays."""
    return [_array(tensor) for tensor in keras.tree.flatten(model(inputs, training=False))]


def symbolic_inputs(model: keras.Model, example_inputs: Any = None) -> Iterator[Any]:
    """Yield what a model may be called with, as symbolic tensors of any number of samples."""
    if example_inputs is not None:
        yield keras.tree.map_structure(
            lambda x: keras.KerasTensor(
                (None, *x.shape[1:]), keras.backend.standardize_dtype(x.dtype)
            ),
            example_inputs,
        )
        return
    known = _symbolic(model)
    if known is not None:
        yield known
        return
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    for dtype in ("float32", "int32") if shapes else ():
        wanted = [
            _mapped(shape, lambda s: keras.KerasTensor((None, *s[1:]), dtype))  # noqa: B023
            for shape in shapes.values()
        ]
        yield wanted[0] if len(wanted) == 1 else wanted


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    if keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":
        tensor = keras.ops.cast(tensor, "float32")  # numpy has none
    return array_of(tensor)


def _candidates(model: keras.Model, batch: int) -> Iterator[Any]:
    known = _symbolic(model)
    if known is not None:
        sizes = SIZES if any(None in t.shape[1:] for t in keras.tree.flatten(known)) else SIZES[:1]
        for size in sizes:
            rng = np.random.default_rng(0)
            yield keras.tree.map_structure(lambda t: random_input(t, batch, size, rng), known)  # noqa: B023
        return
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        return
    for dtype in ("float32", "int32"):
        for size in SIZES:
            rng = np.random.default_rng(0)

            def made(shape: Any) -> Any:
                spec = keras.KerasTensor((None, *shape[1:]), dtype)  # noqa: B023
                return random_input(spec, batch, size, rng)  # noqa: B023

            wanted = [_mapped(shape, made) for shape in shapes.values()]
            yield wanted[0] if len(wanted) == 1 else wanted


def _mapped(shape: Any, make: Any) -> Any:
    """Make something of every shape in a structure, of which shapes are the leaves."""
    if isinstance(shape, Mapping):
        return {key: _mapped(value, make) for key, value in shape.items()}
    if isinstance(shape, list | tuple) and any(
        isinstance(x, list | tuple | Mapping) for x in shape
    ):
        return [_mapped(value, make) for value in shape]
    return make(tuple(shape))


def _symbolic(model: keras.Model) -> Any:
    """What a model says that it takes, as it takes it; None if it says nothing."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    return inputs[0] if isinstance(model, keras.Sequential) else model.input


def random_input(tensor: Any, batch: int, size: int, rng: np.random.Generator) -> Any:
    """Return random numbers, or words, for a symbolic tensor.

    Args:
        tensor: What tells the shape and the type.
        batch: How many samples there are, if it does not say.
        size: What stands for any other size that is open.
        rng: Where the numbers come from.
    """
    shape = [tensor.shape[0] or batch, *(axis or size for axis in tensor.shape[1:])]
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        return keras.ops.convert_to_tensor(rng.choice(WORDS, shape).tolist())
    if "int" in dtype or dtype == "bool":
        return rng.integers(0, 2, shape).astype(dtype)
    values = rng.normal(size=shape)
    return keras.ops.cast(values, dtype) if dtype == "bfloat16" else values.astype(dtype)

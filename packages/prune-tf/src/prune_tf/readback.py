"""Proof that an exported file computes what the model does: read it back elsewhere, and compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import keras
import numpy as np

from prune_core.errors import PruneError
from prune_tf import run_exported
from prune_tf.arrays import array_of
from prune_tf.inputs import run

__all__ = ["ALLOWED", "check_file"]

Array = np.ndarray[Any, Any]
ALLOWED = 1e-3
"""The largest difference of outputs, relative to the largest output.

Other runtimes round otherwise; weights in a wrong layer, or a function mistaken for another, make
differences of a wholly different size.
"""


def check_file(
    model: keras.Model,
    path: Path,
    kind: str,
    inputs: Any,
    allowed: float = ALLOWED,
    *,
    on_average: bool = False,
) -> str:
    """Read a file in a fresh process and compare what it computes with what the model does.

    Args:
        model: The model, as it was written.
        path: The file or folder.
        kind: The format.
        inputs: What both are run on.
        allowed: The largest difference, relative to the largest output.
        on_average: Take the root of mean squares in place of largest numbers, as for a file in
            fewer bits, which rounds every number a little.

    Returns:
        Why what the model was compiled with could not be read; empty if it could.

    Raises:
        PruneError: When the file cannot be read, or computes something else.
    """
    expected = run(model, inputs)
    own = [*_own_objects(model)] if kind == "keras" else []
    if all(map(_is_importable, own)):
        found, notes = _read_elsewhere(model, path, kind, own, inputs)
    else:
        found, notes = _read_here(model, path, own, inputs)
    difference = _difference(expected, found, _mean_gap if on_average else _gap)
    of = "outputs, on average," if on_average else "the largest output,"
    if not difference <= allowed:
        raise PruneError(
            f"The {kind} file of {model.name!r} computes something else than the model: outputs "
            f"differ by {difference:.1e} of {of} and {allowed:.0e} is allowed. "
            "Nothing was written. A function or class of your own that goes by a name of Keras' is "
            "written as Keras' own: register it with @keras.saving.register_keras_serializable(). "
            "verify=False writes the file all the same."
        )
    return str(notes.get("not compiled", ""))


def _read_elsewhere(
    model: keras.Model, path: Path, kind: str, own: list[Any], inputs: Any
) -> tuple[list[Array], dict[str, Any]]:
    arrays: list[Array] = []

    def noted(array: Any) -> int:
        value = array_of(array) if keras.ops.is_tensor(array) else array
        value = np.asarray(value)
        if value.dtype.kind in "OS":
            value = np.array([x.decode() for x in value.ravel()]).reshape(value.shape)
        arrays.append(value)
        return len(arrays) - 1

    names = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
    request = {
        "kind": kind,
        "path": str(path),
        "structure": _structure(inputs, noted),
        "names": names,
        "objects": [(each.__module__, each.__qualname__) for each in own],
    }
    with tempfile.TemporaryDirectory(prefix="prune-readback-") as folder:
        Path(folder, "request.json").write_text(json.dumps(request), encoding="utf-8")
        run_exported.save_arrays(Path(folder, "inputs.npz"), arrays)
        done = subprocess.run(
            # Without -P, modules beside the script would be taken for others of their names.
            [sys.executable, "-P", run_exported.__file__, folder],
            capture_output=True,
            text=True,
            env=_environment(),
        )
        if done.returncode:
            said = [line for line in done.stderr.strip().splitlines() if line.strip()]
            raise PruneError(
                f"The {kind} file of {model.name!r} cannot be read back: "
                f"{said[-1] if said else f'the process ended with {done.returncode}'} Nothing was "
                "written. verify=False writes the file all the same."
            )
        notes = json.loads(Path(folder, "notes.json").read_text(encoding="utf-8"))
        return run_exported.load_arrays(Path(folder, "outputs.npz")), notes


def _environment() -> dict[str, str]:
    return os.environ | {
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # A graphics card is this process' own.
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def _read_here(
    model: keras.Model, path: Path, own: list[Any], inputs: Any
) -> tuple[list[Array], dict[str, Any]]:
    """Read a `.keras` file in this process, where alone classes of a script or notebook exist."""
    options: dict[str, Any] = {
        "custom_objects": {each.__name__: each for each in own},
        "safe_mode": False,
    }
    notes = {}
    try:
        try:
            loaded = keras.models.load_model(path, **options)
        except Exception as error:
            loaded = keras.models.load_model(path, compile=False, **options)
            notes["not compiled"] = f"{type(error).__name__}: {error}"
        return run(loaded, inputs), notes
    except Exception as error:
        raise PruneError(
            f"The keras file of {model.name!r} cannot be read back: {type(error).__name__}: "
            f"{(str(error).strip().splitlines() or ['no more is said'])[0]} Nothing was written. "
            "verify=False writes the file all the same."
        ) from error


def _own_objects(model: keras.Model) -> Iterator[Any]:
    """Classes and functions that the model's file names, and that Keras does not bring."""
    operations = [*model._flatten_layers(), *getattr(model, "operations", ())]
    found = dict.fromkeys(type(each) for each in operations)
    text = json.dumps(keras.saving.serialize_keras_object(model), default=str)
    registered = keras.saving.get_custom_objects().items()
    found |= dict.fromkeys(each for name, each in registered if f'"{name}"' in text)
    for each in found:
        if each.__module__.partition(".")[0] != "keras":
            yield each


def _is_importable(own: Any) -> bool:
    """Whether another process finds a class or a function by its module and name."""
    module: Any = sys.modules.get(own.__module__)
    found = module
    for part in own.__qualname__.split("."):
        found = getattr(found, part, None)
    package = own.__module__.partition(".")[0]
    spec = PathFinder.find_spec(package)
    if found is not own or spec is None:
        return False
    return package != own.__module__ or spec.origin == getattr(module, "__file__", "")


def _structure(tree: Any, noted: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _structure(value, noted) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_structure(value, noted) for value in tree]
    return noted(tree)


def _difference(
    expected: list[Array], found: list[Array], gap: Callable[[Array, Array], float]
) -> float:
    """The largest difference relative to the largest number; outputs of a shape may be swapped.

    Runtimes other than Keras put several outputs in an order of their own.
    """
    if len(expected) != len(found):
        return float("inf")
    left, worst = [*found], 0.0
    for one in expected:
        gaps = [gap(one, other) for other in left]
        best = int(np.argmin(gaps))
        worst = max(worst, gaps[best])
        left.pop(best)
    return worst


def _gap(one: Array, other: Array) -> float:
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind not in "fc":
        return 0.0 if np.array_equal(one, other) else float("inf")
    wide = one.astype(np.float64), other.astype(np.float64)
    same = (wide[0] == wide[1]) | (np.isnan(wide[0]) & np.isnan(wide[1]))
    gap = np.where(same, 0.0, np.abs(wide[0] - wide[1]))
    finite = np.abs(wide[0][np.isfinite(wide[0])])
    scale = float(finite.max(initial=0.0)) or 1.0
    return float(np.nan_to_num(gap, nan=np.inf).max(initial=0.0)) / scale


def _mean_gap(one: Array, other: Array) -> float:
    """The root mean square of differences, relative to that of the numbers."""
    if one.shape != other.shape or one.dtype.kind not in "fc":
        return _gap(one, other)
    expected, found = one.astype(np.float64), other.astype(np.float64)
    scale = float(np.sqrt(np.mean(np.square(expected)))) or 1.0
    gap = float(np.sqrt(np.mean(np.square(expected - found)))) / scale
    return gap if np.isfinite(gap) else float("inf")

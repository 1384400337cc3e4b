"""How far ADMM is, in a file from which it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import keras

from prune_core.files import make_folder
from prune_speedup.search.trials_file import check_same_run
from prune_tf.arrays import array_of
from prune_tf.masks import masks_of
from prune_tf.search.start import Packed, Start, bytes_of, read_header, write_header

__all__ = ["AdmmState", "Pulled"]

FORMAT = "prune-tf-admm-1"


class Pulled(Protocol):
    """A weight that is trained towards a sparse copy of itself.

    Attributes:
        z: The sparse copy.
        u: The sum of what the weight has missed it by.
    """

    z: keras.Variable
    u: keras.Variable


class AdmmState:
    """Weights, optimizer, Z, U and the iterations so far, in a file that is always complete.

    Args:
        path: The file, or None to keep nothing.
        run: What the training does, as plain data; a file of another one is refused.
        model: The model.
        pulls: The weights that are trained towards sparse ones.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None,
        run: Mapping[str, Any],
        model: keras.Model,
        pulls: Sequence[Pulled],
    ) -> None:
        self._path = None if path is None else Path(path)
        self._run = json.loads(json.dumps(run, default=str))
        self._model, self._pulls = model, pulls

    def read(self) -> list[dict[str, Any]]:
        """Let the model be as the file says, and return the iterations so far.

        Raises:
            PruneError: When the file cannot be read.
            ConfigError: When it is of another run, or of another model.
        """
        if self._path is None or not self._path.exists():
            return []
        tensors, header = read_header(self._path, FORMAT, "a training with ADMM")
        check_same_run(str(self._path), header["run"], self._run)
        found = Start(self._model, trained=True)
        found.unpack(Packed(tensors, [tuple(each) for each in header["masks"]]), str(self._path))
        found.put_back()
        for at, pull in enumerate(self._pulls):
            for name, variable in (("z", pull.z), ("u", pull.u)):
                value = tensors[f"{name}.{at}"].view(array_of(variable).dtype)
                variable.assign(value.reshape(variable.shape))
        history: list[dict[str, Any]] = header["history"]
        return history

    def write(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write how far it is.

        Args:
            history: The iterations so far.
        """
        if self._path is None:
            return
        now = Start(self._model, trained=True)
        now.masks = masks_of(self._model)
        packed = now.packed()
        own = {
            f"{name}.{at}": bytes_of(array_of(variable))
            for at, pull in enumerate(self._pulls)
            for name, variable in (("z", pull.z), ("u", pull.u))
        }
        header = {"run": self._run, "masks": packed.masks, "history": list(history)}
        make_folder(self._path.parent)
        write_header(self._path, packed.tensors | own, header, FORMAT)

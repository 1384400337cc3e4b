"""What the trials of a search begin with: weights and masks, in memory and in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from safetensors import SafetensorError, safe_open

from prune_core.errors import ConfigError, PruneError
from prune_core.files import write_safetensors
from prune_speedup.search.trials_file import check_same_run
from prune_tf.masks import Masks, masks_of, put_masks, unwrap
from prune_tf.variables import Kept, of_optimizer

__all__ = ["Packed", "Start", "bytes_of", "read_header", "write_header"]

Array = np.ndarray[Any, Any]

FORMAT = "prune-tf-search-1"


class Start:
    """Weights and masks that every trial begins with.

    Args:
        model: The model, as it is now.
        trained: Whether trials train, so that the optimizer of a compiled model goes back as well.

    Attributes:
        round: The number of the round that has left them, 0 at first.
        masks: The masks; none unless they are set.
    """

    def __init__(self, model: keras.Model, *, trained: bool) -> None:
        self._model = model
        self._variables = [*model.variables, *(of_optimizer(model) if trained else [])]
        self.kept = Kept(self._variables)
        self.masks: Masks = {}
        self.round = 0

    def now(self) -> Kept:
        """Return the numbers that the same variables have now."""
        return Kept(self._variables)

    def put_back(self, *, clean: bool = False) -> None:
        """Let the model be as it was.

        Args:
            clean: Whether to take off other masks, instead of letting them hide nothing; then the
                step of `fit` has to be compiled anew.
        """
        if clean:
            unwrap(self._model)
        self.kept.restore()
        masks: Masks = {
            layer: {name: np.ones_like(mask) for name, mask in tensors.items()}
            for layer, tensors in masks_of(self._model).items()
        }
        for layer, tensors in self.masks.items():
            masks.setdefault(layer, {}).update(tensors)
        put_masks(self._model, masks)

    def move(self, number: int) -> None:
        """Take the model as it is now for where trials begin.

        Args:
            number: The number of the round that has left it so.
        """
        self.kept, self.masks, self.round = self.now(), masks_of(self._model), number

    # --- in a file --------------------------------------------------------------------------

    def packed(self) -> Packed:
        """Return the same as arrays that a file can hold."""
        masks = [(layer, name) for layer, tensors in self.masks.items() for name in tensors]
        tensors = {f"value.{at}": bytes_of(value) for at, value in enumerate(self.kept.values)}
        for at, (layer, name) in enumerate(masks):
            tensors[f"mask.{at}"] = np.ascontiguousarray(self.masks[layer][name])
        return Packed(tensors, masks)

    def unpack(self, packed: Packed, where: str) -> None:
        """Take weights and masks from arrays; `put_back` lets the model have them.

        Args:
            packed: The arrays.
            where: Where they come from, for messages.

        Raises:
            ConfigError: When they are of another model.
        """
        values = [packed.tensors.get(f"value.{at}") for at in range(len(self._variables))]
        for variable, value, kept in zip(self._variables, values, self.kept.values, strict=True):
            if value is None or value.size != kept.nbytes:
                raise ConfigError(
                    f"{where} is of another model, or of another optimizer: {variable.path!r} is "
                    "not the same there. Give another path, or delete the file to start anew."
                )
        shaped = [
            value.view(kept.dtype).reshape(kept.shape)
            for value, kept in zip(values, self.kept.values, strict=True)
            if value is not None
        ]
        self.kept, self.masks = Kept(self._variables, shaped), {}
        for at, (layer, name) in enumerate(packed.masks):
            self.masks.setdefault(layer, {})[name] = packed.tensors[f"mask.{at}"].astype(bool)

    def write(self, path: Path, run: Mapping[str, Any]) -> None:
        """Write a file, which is complete at any moment.

        Args:
            path: The file.
            run: What the search does, as plain data.
        """
        packed = self.packed()
        header = {"run": dict(run), "round": self.round, "masks": packed.masks}
        write_header(path, packed.tensors, header, FORMAT)

    def read(self, path: Path, run: Mapping[str, Any]) -> None:
        """Go on from a file, if it is there.

        Args:
            path: The file.
            run: What the search does; a file of another search is refused.

        Raises:
            PruneError: When it cannot be read.
            ConfigError: When it is of another search, or of another model.
        """
        if not path.exists():
            return
        tensors, header = read_header(path, FORMAT, "the weights of a search")
        check_same_run(str(path), header["run"], run)
        self.unpack(Packed(tensors, header["masks"]), str(path))
        self.round = header["round"]


class Packed(NamedTuple):
    """Weights and masks as arrays that a file can hold.

    Attributes:
        tensors: The arrays by name.
        masks: For each mask its layer and its variable.
    """

    tensors: dict[str, Array]
    masks: list[tuple[str, str]]


def write_header(
    path: Path, tensors: Mapping[str, Array], header: Mapping[str, Any], kind: str
) -> None:
    """Write arrays and plain data to a file, which is complete at any moment."""
    metadata = {"format": kind, "search": json.dumps(header)}
    write_safetensors(path, dict(tensors), metadata, framework="numpy")


def read_header(path: Path, kind: str, what: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return what `write_header` has written.

    Raises:
        PruneError: When it cannot be read, or is another kind of file.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PruneError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Delete it and the "
            "trials to start anew."
        ) from error
    if metadata.get("format") != kind:
        raise PruneError(f"{path} is not a file of {what}. Give another path.")
    return tensors, json.loads(metadata["search"])


def bytes_of(value: Array) -> Array:
    """Return the bytes of an array, also of one whose numbers are of a kind that no file knows."""
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)

"""The models of all rounds so far as numbers in a file, from which they are made again.

Keras cannot read every model back that it writes, such as one with a function of the user's own.
But the user's call makes the large model again, and the same masks make the same small one of it:

    large ─▶ weights, masks of round 1 ─▶ shrink ─▶ weights, masks of round 2 ─▶ shrink ─▶ weights
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from prune_core.files import make_folder
from prune_speedup.search.trials_file import check_same_run
from prune_tf.masks import masks_of
from prune_tf.search.start import Packed, Start, read_header, write_header

__all__ = ["Stages", "as_it_is"]

FORMAT = "prune-tf-autocompress-1"


def as_it_is(model: keras.Model) -> Start:
    """Return weights, masks, and the state of the optimizer of a compiled model."""
    found = Start(model, trained=True)
    found.masks = masks_of(model)
    return found


class Stages:
    """What each small model was made of, in a file that is always complete.

    Args:
        path: The file, or None to keep nothing.
        run: What the run does, as plain data; a file of another one is refused.
    """

    def __init__(self, path: Path | None, run: Mapping[str, Any]) -> None:
        self._path, self._run = path, dict(run)
        self._done: list[Packed] = []

    def add(self, model: keras.Model) -> None:
        """Remember a model as it is when it is about to be made smaller."""
        if self._path is not None:
            self._done.append(as_it_is(model).packed())

    def forget(self, count: int) -> None:
        """Keep as many as these, after a round that did not come to its end."""
        del self._done[count:]

    def __len__(self) -> int:
        return len(self._done)

    def write(self, model: keras.Model, state: Mapping[str, Any]) -> None:
        """Write how the model of now comes about.

        Args:
            model: The model at the end of a round.
            state: What else a start has to know, as plain data.
        """
        if self._path is None:
            return
        stages = [*self._done, as_it_is(model).packed()]
        tensors = {
            f"{at}.{name}": tensor
            for at, stage in enumerate(stages)
            for name, tensor in stage.tensors.items()
        }
        header = {"run": self._run, "state": dict(state), "masks": [each.masks for each in stages]}
        make_folder(self._path.parent)
        write_header(self._path, tensors, header, FORMAT)

    def read(
        self, model: keras.Model, shrunk: Callable[[keras.Model], keras.Model]
    ) -> tuple[keras.Model, dict[str, Any]] | None:
        """Return the model and the state of the file, or None if there is no file.

        Args:
            model: The large model; it is left with other weights where it was made smaller.
            shrunk: Makes a model smaller.

        Raises:
            PruneError: When the file cannot be read.
            ConfigError: When it is of another run, or of another model.
        """
        if self._path is None or not self._path.exists():
            return None
        tensors, header = read_header(self._path, FORMAT, "the rounds of AutoCompressPruner")
        check_same_run(str(self._path), header["run"], self._run)
        for at, masks in enumerate(header["masks"]):
            if at:
                model = shrunk(model)
            mark = f"{at}."
            own = {
                name.removeprefix(mark): each
                for name, each in tensors.items()
                if name.startswith(mark)
            }
            stage = Packed(own, [tuple(each) for each in masks])
            found = as_it_is(model)
            found.unpack(stage, str(self._path))
            found.put_back(clean=True)
            self._done.append(stage)
        self._done.pop()  # the last is the model of now
        return model, header["state"]

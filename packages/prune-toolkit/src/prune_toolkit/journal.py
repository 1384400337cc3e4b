"""What a walk through the blocks of a model has done, kept so that it survives the process."""

from __future__ import annotations

from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prune_core.errors import ConfigError
from prune_core.files import write_safetensors

__all__ = ["Done", "Journal"]

_RUN, _LAST = "run", "last"


class Done(NamedTuple):
    """What a block became.

    Attributes:
        masks: `{module name: {tensor name: mask}}`.
        values: `{module name: {tensor name: values}}`.
    """

    masks: dict[str, dict[str, Tensor]]
    values: dict[str, dict[str, Tensor]]


class Journal:
    """A folder with a file for each block that is done.

    Args:
        folder: Made if it is not there.
        run: Everything that the result depends on, as text.
    """

    def __init__(self, folder: str | PathLike[str], run: str) -> None:
        self.folder = Path(folder)
        self.run = sha256(run.encode()).hexdigest()
        self._check()

    def _check(self) -> None:
        """Refuse the unfinished work of another run; remove what is finished."""
        from safetensors import safe_open

        files = sorted(self.folder.glob("block-*.safetensors"))
        for path in files:
            try:
                with safe_open(path, "pt") as file:
                    said = file.metadata() or {}
            except Exception as error:
                raise ConfigError(f"{path} is damaged: {error}. Remove the folder.") from error
            if said.get(_RUN) == self.run:
                return
        if not files:
            return
        with safe_open(files[-1], "pt") as file:
            finished = (file.metadata() or {}).get(_LAST) == "True"
        if not finished:
            raise ConfigError(
                f"{self.folder} holds the work of another run: of another model, with other "
                "settings, or on other data. Give another folder, or remove it; and if the data "
                "are drawn at random, set the seed before."
            )
        for path in files:
            path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"block-{number:04}.safetensors"

    def read(self, number: int) -> Done | None:
        """Return what a block became, if it is done."""
        from safetensors.torch import load_file

        if not self._path(number).exists():
            return None
        done = Done({}, {})
        for key, tensor in load_file(self._path(number)).items():
            kind, _, rest = key.partition(":")
            module, _, name = rest.rpartition(":")
            if kind == "mask":
                done.masks.setdefault(module, {})[name] = tensor.bool()
            elif kind == "value":
                done.values.setdefault(module, {})[name] = tensor
        return done

    def write(self, number: int, done: Done, *, last: bool) -> None:
        """Write down what a block became."""
        tensors = {
            f"{kind}:{module}:{name}": tensor.detach().cpu().contiguous().clone()
            for kind, modules in (("mask", done.masks), ("value", done.values))
            for module, named in modules.items()
            for name, tensor in named.items()
        }
        # A block that nothing was changed in is done as well, and a file needs a tensor.
        tensors = tensors or {"nothing": torch.zeros(1)}
        write_safetensors(self._path(number), tensors, {_RUN: self.run, _LAST: str(last)})

"""Where activations, and weights as they were, are kept until they are needed again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from prune_core.errors import ConfigError

__all__ = ["Keep", "keeper"]

Keep = Callable[[Tensor], Tensor]
"""Given a tensor, returns another one that holds the same, wherever that is."""

PLACES = ("device", "cpu")


def keeper(where: str | os.PathLike[str]) -> Keep:
    """Return what keeps tensors.

    Args:
        where: `"device"` for the device that they are on, `"cpu"` for its memory, or a folder for
            files in it, which are mapped into memory piece by piece when they are read. They have
            no names there, so nothing is left of them whatever ends the process.

    Raises:
        ConfigError: `where` is neither.
    """
    if where == "device":
        return Tensor.clone
    if where == "cpu":
        return _on_cpu
    folder = Path(where)
    if isinstance(where, str) and not folder.is_dir():
        raise ConfigError(
            f"keep is {where!r}; it must be {', '.join(map(repr, PLACES))}, or a folder that is "
            "there."
        )
    return lambda tensor: _in_a_file(tensor, folder)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()


def _in_a_file(tensor: Tensor, folder: Path) -> Tensor:
    on_cpu = tensor.detach().cpu().contiguous()
    if not on_cpu.numel():
        return on_cpu
    descriptor, path = tempfile.mkstemp(dir=folder, suffix=".prune")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(on_cpu.view(-1).view(torch.uint8).numpy().data)
        mapped = torch.from_file(path, shared=False, size=on_cpu.numel(), dtype=on_cpu.dtype)
    finally:
        # What is mapped stays readable without a name.
        Path(path).unlink()
    return mapped.view(on_cpu.shape)

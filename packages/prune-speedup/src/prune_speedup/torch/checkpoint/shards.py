"""The safetensors files of a folder, mapped into memory: a tensor is read when it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from prune_core.errors import ConfigError, SpeedupError
from prune_core.files import replacing

__all__ = ["INDEX", "Content", "Shards", "write_index", "write_shard"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

_KINDS = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}

Content = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Type and shape of each tensor of a file, in order."""


class Shards:
    """What a folder holds.

    Attributes:
        folder: The folder.
        files: The names of its files, and of the tensors in each.

    Args:
        folder: What `save_pretrained` wrote.

    Raises:
        ConfigError: It has no safetensors files by the usual names.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, list[str]] = {}
        if (folder / INDEX).is_file():
            for name, file in json.loads((folder / INDEX).read_text())["weight_map"].items():
                self.files.setdefault(file, []).append(name)
        elif (folder / SINGLE).is_file():
            self.files[SINGLE] = []
        else:
            raise ConfigError(
                f"{str(folder)!r} has neither {INDEX} nor {SINGLE}; it must be a folder that "
                "save_pretrained wrote."
            )
        if missing := [file for file in self.files if not (folder / file).is_file()]:
            raise ConfigError(f"{str(folder)!r} lacks {missing[0]}, which its index names.")
        if not self.files.get(SINGLE, ["known"]):
            self.files[SINGLE] = [*self._mapped(SINGLE)]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by its name; nothing is read yet."""
        for file, names in self.files.items():
            mapped = self._mapped(file)
            for name in names:
                if name not in mapped:
                    raise ConfigError(f"{file} lacks {name!r}, which the index names.")
                yield name, mapped[name]

    def _mapped(self, file: str) -> dict[str, Tensor]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / file, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ConfigError(f"{file} is damaged or no safetensors file: {error}.") from None

    def state(self) -> list[tuple[str, int, int]]:
        """What tells this content from another: each file with its size and its time."""
        told = [(file, (self.folder / file).stat()) for file in sorted(self.files)]
        return [(file, stat.st_size, stat.st_mtime_ns) for file, stat in told]


def write_shard(path: Path, content: Content, numbers: Callable[[str], Tensor]) -> None:
    """Write a safetensors file, one tensor after the other, so that one at a time is in memory.

    Args:
        path: The file; it appears whole or not at all.
        content: What is in it.
        numbers: Makes the tensor of a name.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in content.items():
        if dtype not in _KINDS:
            raise SpeedupError(f"{name!r} is of type {dtype}, which no shard can be written with.")
        start, end = end, end + prod(shape) * dtype.itemsize
        header[name] = {"dtype": _KINDS[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in content:
            tensor = numbers(name).contiguous().reshape(-1)
            file.write(tensor.view(torch.uint8).numpy().data)


def write_index(folder: Path, files: Mapping[str, list[str]], content: Content) -> None:
    """Write down which tensor is in which file; a single file by the usual name needs that not."""
    if list(files) == [SINGLE]:
        return
    size = sum(prod(shape) * dtype.itemsize for dtype, shape in content.values())
    where = {name: file for file, names in files.items() for name in names}
    index = {
        "metadata": {
            "total_parameters": sum(prod(shape) for _, shape in content.values()),
            "total_size": size,
        },
        "weight_map": dict(sorted(where.items())),
    }
    with replacing(folder / INDEX) as file:
        file.write(json.dumps(index, indent=2).encode())

"""Writing files that appear whole or not at all, and the same bytes for the same content."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import IO, Any

from prune_core.errors import ConfigError

__all__ = ["make_folder", "replacing", "write_safetensors"]


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is in."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(each for each in (path, *path.parents) if each.exists())
        raise ConfigError(f"{file} is a file, and was to be a folder; give another path.") from None


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of `path` when the block ends well.

    Whoever reads `path` sees the old content or the new, also when the process is killed.
    """
    with _replaced_by(path) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def _replaced_by(path: str | PathLike[str]) -> Iterator[Path]:
    """Make a temporary file that takes the place of `path` when the block ends well."""
    if not isinstance(path, str | PathLike) or "\0" in str(path):
        raise ConfigError(f"{path!r} cannot be the path of a file.")
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; give the name of a file in it.")
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # A temporary file is private; what replaces a user's file is as readable as usual.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_safetensors(
    path: str | PathLike[str],
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    *,
    framework: str = "torch",
) -> None:
    """Write a safetensors file that appears whole or not at all.

    Tensors go from where they are to the file: making its content in memory first would take two
    to three times as much as they do.

    Args:
        path: The file.
        tensors: Contiguous tensors by name, each with memory of its own.
        metadata: Text for the header.
        framework: What they are tensors of, `"torch"` or `"numpy"`.
    """
    save_file = import_module(f"safetensors.{framework}").save_file
    with _replaced_by(path) as temporary:
        save_file(dict(tensors), temporary, dict(metadata) if metadata else None)
        _sort_header(temporary)


def _sort_header(path: Path) -> None:
    """Sort the header of a safetensors file, whose notes come in another order in each process.

    A file is the length of a header, the header as JSON, padded with spaces, and the numbers:

        24, {"b": "2", "a": "1"}    , numbers    ->    24, {"a":"1","b":"2"}       , numbers
    """
    with path.open("rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        encoded = text.encode().ljust(length)
        if len(encoded) == length:  # else the writer knows a shorter way to write the same
            file.seek(8)
            file.write(encoded)

"""Writing files that appear whole or not at all, and the same bytes for the same content."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO

from prune_core.errors import ConfigError

__all__ = ["make_folder", "replacing", "with_sorted_header"]


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
    if not isinstance(path, str | PathLike) or "\0" in str(path):
        raise ConfigError(f"{path!r} cannot be the path of a file.")
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; give the name of a file in it.")
    make_folder(path.parent)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # A temporary file is private; what replaces a user's file is as readable as usual.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def with_sorted_header(content: bytes) -> bytes:
    """Sort the header of a safetensors file, whose notes come in another order in each process.

    A file is the length of a header, the header as JSON, padded with spaces to eight bytes, and the
    numbers.

    >>> content = (24).to_bytes(8, "little") + b'{"b": "2", "a": "1"}    ' + b"numbers"
    >>> with_sorted_header(content)[8:]
    b'{"a":"1","b":"2"}       numbers'
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]

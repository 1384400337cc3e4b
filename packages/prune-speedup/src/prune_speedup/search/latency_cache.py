"""A cache of measured latencies, kept for a search that is resumed.

A time is never measured twice the same, and the plans of a search depend on it. A search that goes
on comes to the same end only if it is told the same times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from prune_core.errors import ConfigError, PruneError
from prune_core.files import make_folder, replacing

__all__ = ["LatencyCache"]

FILE = "latency.json"


class LatencyCache(dict[str, float]):
    """`{what was measured: latency}`, written to a file in a folder with each new one.

    What was measured begins with the model, so several searches may share a folder.

    Args:
        folder: The folder, or None to keep them in memory.
        kept_elsewhere: Whether the search is kept where these cannot be.
        instead: What to do about that.
        writes: Whether this process writes the file.
    """

    def __init__(
        self,
        folder: str | PathLike[str] | None,
        kept_elsewhere: bool = False,
        *,
        instead: str = "give log_dir= as well",
        writes: bool = True,
    ) -> None:
        if folder is None and kept_elsewhere:
            raise ConfigError(
                "The target has a latency, and what has been measured is kept in a folder: "
                f"{instead}, so that the search can go on."
            )
        self._writes = writes
        self._path = None if folder is None else Path(folder) / FILE
        super().__init__()
        if self._path is not None and self._path.exists():
            self.update(_read(self._path))

    def keep(self, more: Mapping[str, float]) -> None:
        """Add what was measured, and write all of it."""
        self.update(more)
        if self._path is not None and self._writes:
            make_folder(self._path.parent)
            with replacing(self._path) as file:
                file.write(json.dumps(self, indent=1).encode())


def _read(path: Path) -> dict[str, float]:
    try:
        return {key: float(latency) for key, latency in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise PruneError(
            f"{path} keeps what was measured and cannot be read ({type(error).__name__}: {error}). "
            "Give another folder, or delete the file to measure anew."
        ) from error

"""A folder that is being written: what is done stays, and who is interrupted goes on there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from prune_core.errors import ConfigError
from prune_core.files import make_folder, replacing

__all__ = ["Unfinished"]

MARKER, WORK = ".prune-unfinished.json", ".prune-work"


class Unfinished:
    """A folder for files that are written in stages.

    Attributes:
        folder: The folder.
        work: A folder in it for what is not wanted in the end.

    Args:
        folder: The folder, empty or begun by the same call.

    Raises:
        ConfigError: There is something else in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / WORK
        self._marker = folder / MARKER
        if folder.is_dir() and any(folder.iterdir()) and not self._marker.is_file():
            raise ConfigError(
                f"out is {str(folder)!r}, and there is something in it; give another."
            )
        make_folder(folder)

    def write(
        self,
        stage: str,
        digest: str,
        folder: Path,
        files: Sequence[str],
        write: Callable[[Path, str], None],
    ) -> None:
        """Write those files of a stage that are not there yet.

        Args:
            stage: Its name.
            digest: What tells its content from any other; with another one it begins anew.
            folder: Where the files go.
            files: Their names.
            write: Writes one, given its path and its name.
        """
        told = self._told()
        done = told[stage]["done"] if told.get(stage, {}).get("of") == digest else []
        make_folder(folder)
        told[stage] = {"of": digest, "done": done}
        self._note(told)
        for file in files:
            if file not in done or not (folder / file).is_file():
                write(folder / file, file)
                done.append(file)
                self._note(told)

    def drop(self, stage: str) -> None:
        """Take away what a stage has left in the folder for work, if nobody needs it any more."""
        shutil.rmtree(self.work / stage, ignore_errors=True)

    def finish(self) -> None:
        """Take away what is not wanted any more, and say that all is written."""
        shutil.rmtree(self.work, ignore_errors=True)
        self._marker.unlink(missing_ok=True)

    def discard(self, files: Iterable[str]) -> None:
        """Take away what was written: these files, and all that is not wanted in the end."""
        for file in files:
            (self.folder / file).unlink(missing_ok=True)
        self.finish()

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self._marker.is_file():
            told = json.loads(self._marker.read_text())
        return told

    def _note(self, told: object) -> None:
        with replacing(self._marker) as file:
            file.write(json.dumps(told).encode())

"""The folder of a run: what is in it, and how it is written so that a kill does no harm.

DIR/
  recipe.yaml          the recipe, as it was read
  run.json             what a run is: the recipe with all defaults, versions, environment
  steps/01-dense/      a folder for each step that is done, whole or not there
  steps/03-finetune.unfinished/    what the step under way has kept
  events.jsonl, run.log            what happened, of all starts together
  report.json, masks.safetensors, small.safetensors, exports/    the result
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prune_core.errors import ConfigError, shown
from prune_core.files import make_folder, replacing

__all__ = ["RunFolder", "write_json"]

_UNFINISHED = ".unfinished"
_FORMAT = 1


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


class RunFolder:
    """A folder that a run fills.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps = path / "steps"

    # --- what run it is -------------------------------------------------------------------------

    @property
    def run(self) -> dict[str, Any] | None:
        """What `run.json` holds, or None where there was no run yet.

        Raises:
            ConfigError: It is damaged, or of a newer release.
        """
        file = self.path / "run.json"
        try:
            run = json.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} cannot be read: {error}.") from None
        if not isinstance(run, dict) or not isinstance(run.get("recipe"), dict):
            raise ConfigError(f"{file} is not what prune run writes.")
        if run.get("format") != _FORMAT:
            raise ConfigError(
                f"{file} has the format {shown(run.get('format'))}; this release reads {_FORMAT}."
            )
        return run

    @property
    def finished(self) -> bool:
        """Whether the run has ended well."""
        return (self.path / "finished.json").is_file()

    def begin(self, recipe: bytes, run: dict[str, Any]) -> None:
        """Write down what run this is, unless it has begun already.

        Raises:
            ConfigError: The folder is of another recipe, or holds something else.
        """
        if (there := self.run) is None:
            make_folder(self.path)
            # A run that was killed in its first moment may have left its recipe.
            own = self.path / "recipe.yaml"
            strangers = [
                file.name
                for file in self.path.iterdir()
                if not file.name.startswith(".")
                and not (file == own and file.read_bytes() == recipe)
            ]
            if strangers:
                raise ConfigError(
                    f"{self.path} is not empty ({strangers[0]!r} among others) and holds no run of "
                    "a recipe; name another folder with --output."
                )
            with replacing(self.path / "recipe.yaml") as file:
                file.write(recipe)
            write_json(self.path / "run.json", {"format": _FORMAT, **run})
        elif (different := _difference(there["recipe"], run["recipe"])) is not None:
            raise ConfigError(
                f"{self.path} is the run of another recipe: {different}. Name another folder with "
                "--output, or delete this one."
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Refuse a second run in the same folder; the lock goes with the process."""
        make_folder(self.path)
        with (self.path / ".lock").open("wb") as file:
            if not _lock(file.fileno()):
                raise ConfigError(f"Another prune run is at work in {self.path}.")
            yield

    # --- steps ----------------------------------------------------------------------------------

    def step(self, name: str) -> Path:
        """Return the folder of a step that is done."""
        return self.steps / name

    def is_done(self, name: str) -> bool:
        """Whether a step is done."""
        return self.step(name).is_dir()

    def result(self, name: str) -> dict[str, Any]:
        """Return what a step that is done has noted."""
        result: dict[str, Any] = json.loads((self.step(name) / "result.json").read_bytes())
        return result

    @contextmanager
    def doing(self, name: str) -> Iterator[Path]:
        """Give a step a folder to write into, which counts once the block has ended well.

        What an earlier start has kept in it is still there.
        """
        unfinished = self.steps / f"{name}{_UNFINISHED}"
        make_folder(unfinished)
        yield unfinished
        shutil.rmtree(unfinished / "kept", ignore_errors=True)
        _on_disk(unfinished)
        unfinished.rename(self.step(name))
        _on_disk(self.steps)


def _difference(one: Any, other: Any, place: str = "") -> str | None:
    """Say where two recipes differ first."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            inside = f"{place}.{key}" if place else key
            if (found := _difference(one.get(key), other.get(key), inside)) is not None:
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        inside = (_difference(a, b, f"{place}[{at}]") for at, (a, b) in pairs)
        return next(filter(None, inside), None)
    return None if one == other else f"{place} is {shown(one)} there and {shown(other)} here"


def _on_disk(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows has no such call."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ModuleNotFoundError:  # on Windows, whose own locks end with the process as well
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

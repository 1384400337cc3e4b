"""What the shell offers where a recipe, a run or a registered name is to be typed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from prune_core.cli.completion import names_of_kind

__all__ = ["exporters", "pruners", "recipe_files", "run_folders"]


def recipe_files(incomplete: str) -> Iterator[str]:
    """Offer YAML files, and the folders on the way to them."""
    yield from _paths(incomplete, lambda path: path.suffix in (".yaml", ".yml"))


def run_folders(incomplete: str) -> Iterator[str]:
    """Offer folders of runs, and the folders on the way to them."""
    yield from _paths(incomplete, lambda path: (path / "run.json").is_file())


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> Iterator[str]:
    head, slash, begun = incomplete.rpartition("/")
    folder = Path(head + slash) if head or slash else Path()
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return
    for path in found:
        if not path.name.startswith(begun) or (path.name[0] == "." and not begun):
            continue
        if wanted(path):
            yield f"{head}{slash}{path.name}"
        elif path.is_dir():
            yield f"{head}{slash}{path.name}/"


def pruners(incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the names of algorithms."""
    yield from names_of_kind("pruner", incomplete)


def exporters(incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the names of formats."""
    yield from names_of_kind("exporter", incomplete)

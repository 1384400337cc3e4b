"""Source trees of small plugins, and wheels of them as a user's pip would build them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from prune_core.testing.environments import run

__all__ = ["build_wheels", "write_plugin"]

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "{version}"
dependencies = {dependencies}

[project.entry-points."prune_core.plugins"]
{name} = "{entry_point}"
"""


def write_plugin(
    folder: Path,
    name: str,
    *,
    hooks: str,
    files: Mapping[str, str] | None = None,
    version: str = "1.0",
    requires: Sequence[str] = ("prune-core",),
    entry_point: str | None = None,
) -> Path:
    """Write the source tree of a plugin and return its folder.

    Args:
        folder: Where the tree goes, as `folder/name`.
        name: Name of the distribution; its package is the same with underscores.
        hooks: Text of its `hooks.py`.
        files: Text of further files of the package.
        version: Version of the distribution.
        requires: What it depends on.
        entry_point: Where its entry point leads, when not to its `hooks.py`.
    """
    package = name.replace("-", "_")
    project = folder / name
    (project / package).mkdir(parents=True)
    for file, text in {"__init__.py": "", "hooks.py": hooks, **(files or {})}.items():
        (project / package / file).write_text(text, encoding="utf-8")
    pyproject = PYPROJECT.format(
        name=name,
        version=version,
        dependencies=list(requires),
        entry_point=entry_point or f"{package}.hooks",
    )
    (project / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    return project


def build_wheels(*projects: Path, into: Path, dependencies: bool = False) -> list[Path]:
    """Build wheels with the build backend that is installed here.

    Args:
        projects: Folders with a `pyproject.toml`.
        into: Where the wheels go.
        dependencies: Whether to add wheels of all that the projects depend on.

    Returns:
        Every wheel that is in `into` now.
    """
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation"]
    needs = () if dependencies else ("--no-deps",)
    run(*pip, *needs, "--wheel-dir", into, *projects)
    return sorted(into.glob("*.whl"))

"""A copy of this repository, and wheels of its packages built once per run as pip would."""

import shutil
import subprocess
from pathlib import Path

import pytest

from prune_core.testing import Environment, build_wheels

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def repository_copy(tmp_path: Path) -> Path:
    """A git repository of its own with the files of this one: one commit, no tags."""
    copy = tmp_path / "repository"
    files = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(files, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # and not deleted since
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    for command in (
        ("init", "--quiet", "--initial-branch", "main"),
        ("config", "user.name", "A Maintainer"),
        ("config", "user.email", "maintainer@example.org"),
        ("config", "commit.gpgsign", "false"),
        ("config", "tag.gpgsign", "false"),
        ("add", "--all"),
        ("commit", "--quiet", "--message", "Everything"),
    ):
        subprocess.run(("git", *command), cwd=copy, check=True)
    return copy


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory):
    """A folder with wheels of prune-core and of all that it requires."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    build_wheels(ROOT / "packages" / "prune-core", into=folder, dependencies=True)
    return folder


@pytest.fixture(scope="session")
def fresh_environment(wheelhouse, tmp_path_factory):
    """A function that makes an environment with prune-core and with the given wheels.

    The wheels come without what they depend on: so a test can install what pip would refuse, and
    what a later upgrade of prune-core can leave behind on anyone's machine.
    """

    def create(*wheels):
        environment = Environment.create(tmp_path_factory.mktemp("environment") / "venv")
        environment.install("--no-index", "--find-links", wheelhouse, "prune-core")
        if wheels:
            environment.install("--no-index", "--no-deps", *wheels)
        return environment

    return create

import shutil
import subprocess
from pathlib import Path

import pytest

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

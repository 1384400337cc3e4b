import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Repository:
    """A copy of this repository in which releases can be made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *arguments: str) -> str:
        command = ("git", *arguments)
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, f"scripts/{name}.py", *arguments)
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)

    def file(self, package: str, name: str) -> Path:
        return self.path / "packages" / package / name

    def version(self, package: str, at: str = "HEAD") -> str:
        module = package.replace("-", "_")
        text = self.git("show", f"{at}:packages/{package}/src/{module}/__about__.py")
        return text.removeprefix('__version__ = "').removesuffix('"')

    def write(self, package: str, name: str, text: str) -> None:
        """Commit a file of a package."""
        self.file(package, name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", f"Write {name}")

    def set_version(self, package: str, version: str) -> None:
        module = package.replace("-", "_")
        self.write(package, f"src/{module}/__about__.py", f'__version__ = "{version}"\n')

    def require_core(self, package: str, specifier: str) -> None:
        pyproject = self.file(package, "pyproject.toml").read_text()
        required = re.sub(r'("prune-core(?:\[torch\])?)[^"]*', rf"\g<1>{specifier}", pyproject)
        self.write(package, "pyproject.toml", required)


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A git repository of its own with the files of this one: one commit, no tags."""
    return copied_to(tmp_path / "repository")


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """As `repository`, one for all tests of a file."""
    return copied_to(tmp_path_factory.mktemp("shared") / "repository")


def copied_to(copy: Path) -> Repository:
    """Copy this repository, as it is in the working tree."""
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
    return Repository(copy)

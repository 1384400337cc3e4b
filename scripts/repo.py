"""What the scripts know of this repository: packages, their versions and needs, and tags."""

import re
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
CORE = "prune-core"


def packages() -> list[str]:
    """Return the names of the distributions of this repository."""
    return sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))


def package_dir(package: str) -> Path:
    """Return the directory of a distribution, or stop with the names that there are."""
    if package not in packages():
        raise SystemExit(f"{package!r} is not in packages/, which holds {', '.join(packages())}.")
    return ROOT / "packages" / package


def version(package: str) -> Version:
    """Return the version that a distribution has in the working tree."""
    about = package_dir(package) / "src" / package.replace("-", "_") / "__about__.py"
    found = re.search(r'__version__ = "(.+)"', about.read_text())
    if found is None:
        raise SystemExit(f"{about} does not say __version__ = ...")
    return Version(found[1])


def core_requirement(package: str) -> Requirement:
    """Return what a plugin requires of prune-core."""
    for requirement in requirements_on_siblings(package):
        if canonicalize_name(requirement.name) == CORE:
            return requirement
    raise SystemExit(f"{package} does not require {CORE}.")


def _project(package: str) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((package_dir(package) / "pyproject.toml").read_text())[
        "project"
    ]
    return project


def extras_of(package: str) -> list[str]:
    """Return the names of a distribution's extras."""
    return list(_project(package).get("optional-dependencies", {}))


def requirements_on_siblings(package: str, extras: Iterable[str] = ()) -> list[Requirement]:
    """Return what a distribution requires of others of this repository, for itself and extras."""
    project = _project(package)
    optional = project.get("optional-dependencies", {})
    listed = [*project["dependencies"], *(text for extra in extras for text in optional[extra])]
    requirements = [Requirement(text) for text in listed]
    return [each for each in requirements if canonicalize_name(each.name) in packages()]


def siblings_of(package: str, extras: Iterable[str] = ()) -> list[str]:
    """Return the distributions of this repository that one needs, directly or not."""
    found: list[str] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(package, frozenset(extras))]
    while waiting:
        for requirement in requirements_on_siblings(*waiting.pop()):
            need = canonicalize_name(requirement.name), frozenset(requirement.extras)
            if need not in seen:
                seen.add(need)
                waiting.append(need)
                if need[0] not in (package, *found):
                    found.append(need[0])
    return found


def git(*arguments: str) -> str:
    """Return what git prints."""
    done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def tag_of(package: str, released: Version) -> str | None:
    """Return the tag of a released version; 0.1 and 0.1.0 are the same version."""
    prefix = f"{package}-v"
    for tag in git("tag", "--list", f"{prefix}*").splitlines():
        if Version(tag.removeprefix(prefix)) == released:
            return tag
    return None

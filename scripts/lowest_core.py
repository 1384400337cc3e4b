"""Put the lowest prune-core that a plugin allows into a directory.

A lower bound that nobody tests soon becomes untrue. The version named by the bound is taken from
its tag; it is the one in the working tree as long as it has not been released.

Usage: python scripts/lowest_core.py prune-filter some/directory
"""

import argparse
import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from packaging.version import Version
from repo import CORE, ROOT, core_requirement, package_dir, tag_of, version


def lowest_allowed(package: str) -> Version:
    """Return the lower bound of a plugin's requirement on prune-core."""
    requirement = core_requirement(package)
    bounds = [Version(s.version) for s in requirement.specifier if s.operator in (">=", "~=", "==")]
    if not bounds:
        raise SystemExit(f"{package} requires {str(requirement)!r}, which has no lower bound.")
    return max(bounds)


def is_in_tree(lowest: Version) -> bool:
    """Return whether a version is the one in the working tree, and was not released before."""
    here = version(CORE)
    # A bound such as >=0.4.0.dev0 asks for what is being developed: nothing older has it.
    same = here == lowest or (lowest.is_devrelease and here.base_version == lowest.base_version)
    return same and tag_of(CORE, lowest) is None


def write_core(lowest: Version, destination: Path) -> str:
    """Write the sources of a version of prune-core and return where they came from."""
    shutil.rmtree(destination, ignore_errors=True)
    tag = tag_of(CORE, lowest)
    if tag is not None:
        archive = subprocess.run(
            ("git", "archive", f"{tag}:packages/{CORE}"), cwd=ROOT, capture_output=True, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            # Early releases of Python 3.11 have no filters yet; the archive is our own.
            safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            files.extractall(destination, **safely)
        return f"tag {tag}"
    if is_in_tree(lowest):
        shutil.copytree(package_dir(CORE), destination)
        return "the working tree"
    raise SystemExit(
        f"{CORE} {lowest} has no tag {CORE}-v{lowest}, and the working tree holds {version(CORE)}. "
        "If the release exists, fetch its tag: git fetch --tags"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("package", help="a plugin in packages/, such as prune-filter")
    parser.add_argument("destination", type=Path)
    arguments = parser.parse_args()
    lowest = lowest_allowed(arguments.package)
    origin = write_core(lowest, arguments.destination)
    print(f"{arguments.package} allows {CORE} {lowest} and newer; {lowest} is from {origin}")


if __name__ == "__main__":
    main()

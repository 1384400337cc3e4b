"""Release one package: its version, its changelog, a commit, a tag, and the next version.

    python scripts/release.py prune-filter            what is being developed: 0.2.0.dev0 → 0.2.0
    python scripts/release.py prune-filter minor      or patch, major, or a version
    python scripts/release.py prune-filter --dry-run  only say what would be done

Nothing leaves the machine: the last line printed is the push that publishes the release.
"""

import argparse
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

from packaging.version import InvalidVersion, Version
from repo import ROOT, git, package_dir, packages, requirements_on_siblings, tag_of, version


def target(current: Version, bump: str) -> Version:
    """Return the version to release.

    >>> [str(target(Version("0.2.0.dev0"), bump)) for bump in ("release", "minor", "major")]
    ['0.2.0', '0.2.0', '1.0.0']
    >>> [str(target(Version("0.1.0"), bump)) for bump in ("release", "patch", "0.3")]
    ['0.1.0', '0.1.1', '0.3']
    """
    major, minor, micro = current.major, current.minor, current.micro
    ahead = current.is_prerelease  # 0.2.0.dev0 is already on its way to 0.2.0
    match bump:
        case "release":
            return Version(current.base_version)
        case "patch":
            micro += not ahead
        case "minor":
            minor, micro = minor + (not (ahead and micro == 0)), 0
        case "major":
            major, minor, micro = major + (not (ahead and minor == micro == 0)), 0, 0
        case _:
            return Version(bump)
    return Version(f"{major}.{minor}.{micro}")


def following(released: Version) -> Version:
    """Return the version to develop next; after a patch that is another patch.

    >>> str(following(Version("0.2.0"))), str(following(Version("0.2.1")))
    ('0.3.0.dev0', '0.2.2.dev0')
    """
    if released.micro:
        return Version(f"{released.major}.{released.minor}.{released.micro + 1}.dev0")
    return Version(f"{released.major}.{released.minor + 1}.0.dev0")


def check(package: str, releasing: Version) -> None:
    """Stop unless this version can be released from the tree as it is."""
    if changes := git("status", "--porcelain"):
        raise SystemExit(f"The working tree has uncommitted changes:\n{changes}")
    if tag := tag_of(package, releasing):
        raise SystemExit(f"{package} {releasing} is released: {tag}. Say patch, minor or major.")
    if releasing < version(package):
        raise SystemExit(f"{package} is at {version(package)}, past {releasing}.")
    for requirement in requirements_on_siblings(package):
        if any(Version(specifier.version).is_prerelease for specifier in requirement.specifier):
            raise SystemExit(
                f"{package} requires {str(requirement)!r}, which no released {requirement.name} "
                f"satisfies. Release {requirement.name} first, and require that."
            )


def bound_raised(pyproject: str, package: str, developing: Version) -> str:
    """Let a requirement on a package reach the version that is now developed beside it.

    >>> bound_raised('["prune-core[torch]>=0.1,<0.2"]', "prune-core", Version("0.2.0.dev0"))
    '["prune-core[torch]>=0.1,<0.3"]'
    """
    limit = f"<{developing.major}.{developing.minor + 1}"
    return re.sub(rf'("{package}(?:\[[^\]]*\])?[^"]*)<\d+(?:\.\d+)*', rf"\g<1>{limit}", pyproject)


class Steps:
    """Says every step, and does it unless this is a dry run."""

    def __init__(self, *, dry: bool) -> None:
        self.dry = dry

    def run(self, *command: str, cwd: Path = ROOT) -> None:
        """Run a command."""
        place = "" if cwd == ROOT else f"  (in {cwd.relative_to(ROOT)})"
        shown = ["python" if word == sys.executable else word for word in command]
        print(f"$ {shlex.join(shown)}{place}", flush=True)
        if not self.dry:
            subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)

    def set_version(self, package: str, wanted: Version) -> None:
        """Write a version, as `hatch version` does."""
        if version(package) != wanted:
            where = package_dir(package)
            self.run(sys.executable, "-m", "hatchling", "version", str(wanted), cwd=where)

    def raise_bound(self, plugin: str, package: str, developing: Version) -> None:
        """Let a plugin use what is developed next of a package that it requires."""
        pyproject = package_dir(plugin) / "pyproject.toml"
        old = pyproject.read_text()
        new = bound_raised(old, package, developing)
        if new != old:
            print(f"# {plugin} may use {package} {developing}")
            if not self.dry:
                pyproject.write_text(new)


def release(package: str, releasing: Version, steps: Steps) -> None:
    """Commit and tag a version of a package, then begin the next one."""
    directory = package_dir(package)
    tag = f"{package}-v{releasing}"
    steps.set_version(package, releasing)
    today = date.today().isoformat()
    steps.run(
        *(sys.executable, "-m", "towncrier", "build", "--yes"),
        *("--version", str(releasing), "--date", today),
        cwd=directory,
    )
    steps.run("git", "add", "--all", str(directory.relative_to(ROOT)))
    steps.run("git", "commit", "--message", f"Release {package} {releasing}")
    steps.run("git", "tag", "--annotate", tag, "--message", f"{package} {releasing}")

    developing = following(releasing)
    steps.set_version(package, developing)
    for plugin in packages():
        if plugin != package:
            steps.raise_bound(plugin, package, developing)
    steps.run("git", "commit", "--all", "--message", f"Begin {package} {developing}")
    print(f"\nTo publish it: git push origin HEAD {tag}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", help=", ".join(packages()))
    parser.add_argument("bump", nargs="?", default="release")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    current = version(arguments.package)
    try:
        releasing = target(current, arguments.bump)
    except InvalidVersion:
        raise SystemExit(
            f"{arguments.bump!r} is neither release, patch, minor or major, nor a version."
        ) from None
    check(arguments.package, releasing)
    release(arguments.package, releasing, Steps(dry=arguments.dry_run))


if __name__ == "__main__":
    main()

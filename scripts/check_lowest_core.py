"""Test a plugin with the lowest prune-core that it allows, which has to be installed already.

While that is the core of the working tree, the plugin's own environment runs the same tests with
the same packages. Here it is then enough to see that the two get along.

Usage: python scripts/check_lowest_core.py prune-filter [arguments of pytest]
"""

import subprocess
import sys
from importlib.metadata import version as installed_version

from packaging.version import Version
from repo import CORE, ROOT, package_dir, version


def main() -> None:
    package, *arguments = sys.argv[1:]
    tests = package_dir(package) / "tests"
    if Version(installed_version(CORE)) == version(CORE):
        print(
            f"{package} allows no older {CORE} than the one in the tree, {version(CORE)}.",
            flush=True,
        )
        tests, arguments = tests / "test_hooks.py", []
    command = (sys.executable, "-m", "pytest", str(tests), *arguments)
    raise SystemExit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()

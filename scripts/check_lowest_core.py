"""Install a plugin with the lowest prune-core that it allows, and test it.

    python scripts/check_lowest_core.py prune-filter some/folder

While that is the core of the working tree, the plugin's own environment runs the same tests with
the same packages, and nothing is done here but to say so.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from lowest_core import is_in_tree, lowest_allowed, write_core
from repo import CORE, ROOT, package_dir, version

INSTALLED = {
    "prune-speedup": ("prune-core[cli]", "prune-speedup[torch]"),
    "prune-tf": ("prune-tf", "tensorflow-cpu"),
}
"""What the tests of a plugin need, where that is more than the plugin."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("plugin", help="prune-filter, or an environment such as mincore-filter")
    parser.add_argument("core", type=Path, help="the folder that gets the lowest prune-core")
    arguments, of_pytest = parser.parse_known_args()
    plugin = f"prune-{arguments.plugin.partition('-')[2]}"
    lowest = lowest_allowed(plugin)
    if is_in_tree(lowest):
        print(f"{plugin} allows no older {CORE} than the one in the tree, {version(CORE)}.")
        return
    origin = write_core(lowest, arguments.core)
    print(f"{plugin} allows {CORE} {lowest} and newer; {lowest} is from {origin}.")
    install = INSTALLED.get(plugin, (plugin,))
    commands = (
        (ROOT / "scripts/install_from_tree.py", "--core", arguments.core, *install),
        ("-m", "pytest", package_dir(plugin) / "tests", *of_pytest),
    )
    for command in commands:
        done = subprocess.run((sys.executable, *map(str, command)), cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()

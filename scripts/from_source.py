"""Make the packages of this tree known to a Python that installs nothing.

    eval "$(python scripts/from_source.py FOLDER)"

With the `src` folders on PYTHONPATH, packages can be imported, but their plugins are not found:
those are announced by entry points, which an installation writes down. This writes them into
FOLDER, and prints the line that sets PYTHONPATH. It is for machines without a network; anywhere
else, `python scripts/install_from_tree.py all --editable` is better.
"""

import shlex
import sys
import tomllib
from pathlib import Path

from repo import package_dir, packages, version


def announce(package: str, folder: Path) -> None:
    """Write the metadata of a package, as an installer does."""
    project = tomllib.loads((package_dir(package) / "pyproject.toml").read_text())["project"]
    number = version(package)
    known = folder / f"{package.replace('-', '_')}-{number}.dist-info"
    known.mkdir(parents=True, exist_ok=True)
    (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {number}\n")
    lines = []
    for group, entries in project.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{entry} = {target}" for entry, target in entries.items())]
    (known / "entry_points.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Announce all packages, and print what a shell has to set."""
    if len(sys.argv) != 2:
        raise SystemExit('usage: eval "$(python scripts/from_source.py FOLDER)"')
    folder = Path(sys.argv[1]).resolve()
    for package in packages():
        announce(package, folder)
    paths = [str(folder), *(str(package_dir(package) / "src") for package in packages())]
    print(f"export PYTHONPATH={shlex.quote(':'.join(paths))}${{PYTHONPATH:+:$PYTHONPATH}}")


if __name__ == "__main__":
    main()

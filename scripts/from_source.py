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

PACKAGES = Path(__file__).parents[1] / "packages"


def version_of(package: Path) -> str:
    about = next((package / "src").glob("*/__about__.py")).read_text()
    names: dict[str, str] = {}
    exec(about, names)
    return names["__version__"]


def announce(package: Path, folder: Path) -> None:
    """Write the metadata of a package, as an installer does."""
    settings = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    name, version = settings["name"], version_of(package)
    known = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    known.mkdir(parents=True, exist_ok=True)
    (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in settings.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{entry} = {target}" for entry, target in entries.items())]
    (known / "entry_points.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit('usage: eval "$(python scripts/from_source.py FOLDER)"')
    folder = Path(sys.argv[1]).resolve()
    packages = sorted(path.parent for path in PACKAGES.glob("*/pyproject.toml"))
    for package in packages:
        announce(package, folder)
    paths = [str(folder), *(str(package / "src") for package in packages)]
    print(f"export PYTHONPATH={shlex.quote(':'.join(paths))}${{PYTHONPATH:+:$PYTHONPATH}}")


if __name__ == "__main__":
    main()

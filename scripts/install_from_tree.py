"""Install packages of this repository, as pip would build them, where this script runs.

    python scripts/install_from_tree.py prune-filter             with the siblings that it needs
    python scripts/install_from_tree.py "prune-core[cli]" torch  what is no sibling goes on to uv
    python scripts/install_from_tree.py all --editable           every package, for working on it

Siblings are installed by one command, so that a plugin is tested with the core beside it and not
with one from an index.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from repo import CORE, ROOT, packages, siblings_of

NAME = re.compile(r"(?P<name>[a-z0-9-]+)(?P<extras>\[.*\])?")


def folders_of(wanted: list[str], core: Path | None = None) -> tuple[list[str], list[str]]:
    """Return the folders to install, with extras, and the words that name no package of ours.

    >>> folders, others = folders_of(["prune-filter", "prune-core[cli]", "torch"])
    >>> [Path(folder).name for folder in folders]
    ['prune-core[cli]', 'prune-speedup', 'prune-toolkit', 'prune-export', 'prune-filter']
    >>> others
    ['torch']
    """
    extras: dict[str, str] = {}
    others: list[str] = []
    for word in [*(packages() if "all" in wanted else ()), *wanted]:
        match = NAME.fullmatch(word)
        if match is None or match["name"] not in packages():
            others += [word] if word != "all" else []
            continue
        wanted_extras = (match["extras"] or "").strip("[]").split(",")
        for name in siblings_of(match["name"], filter(None, wanted_extras)):
            extras.setdefault(name, "")
        extras[match["name"]] = match["extras"] or extras.get(match["name"], "")
    # What others need comes first.
    ordered = sorted(extras, key=lambda name: len(siblings_of(name)))
    return [f"{_folder(name, core)}{extras[name]}" for name in ordered], others


def _folder(name: str, core: Path | None) -> Path:
    return core if core is not None and name == CORE else ROOT / "packages" / name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", nargs="+")
    parser.add_argument("--editable", action="store_true")
    parser.add_argument(
        "--without-pins", action="store_true", help="take what is newest, and no constraints.txt"
    )
    parser.add_argument("--core", type=Path, help="a folder with another prune-core")
    parser.add_argument("--show", action="store_true", help="only print the folders")
    arguments = parser.parse_args()
    folders, others = folders_of(arguments.package, arguments.core)
    if arguments.show:
        print(*(f"./{Path(folder).relative_to(ROOT)}" for folder in folders))
        return
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable]
    if not arguments.without_pins:
        command += ["--constraint", str(ROOT / "constraints.txt")]
    for name in packages():  # also makes uv build a folder afresh, which it would remember
        command += ["--reinstall-package", name]
    for folder in folders:
        command += ["--editable", folder] if arguments.editable else [folder]
    raise SystemExit(subprocess.run([*command, *others], check=False).returncode)


if __name__ == "__main__":
    main()

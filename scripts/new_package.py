"""Add a package to this repository: its files, and its place in tox, docs and README.

    tox run -e new-package -- prune-example

The new package registers one criterion, which its tests check. Change that into what the package is
for. Nothing is committed.
"""

import argparse
import re
import shutil
import tomllib
from datetime import date
from pathlib import Path

from repo import CORE, ROOT, packages, version

from prune_toolkit.new_plugin import compatible_range, write_template

PATTERN = "prune-lottery"  # the package whose lines in lists of all packages are copied


def write_package(name: str) -> list[Path]:
    """Write the folder of the package and return its files."""
    folder = ROOT / "packages" / name
    write_template(folder, name, author="the prune authors")
    shutil.rmtree(folder / ".github")
    (folder / ".gitignore").unlink()
    module = name.replace("-", "_")
    pattern = ROOT / "packages" / PATTERN
    shutil.copy(pattern / "LICENSE", folder / "LICENSE")
    (folder / "changelog.d").mkdir()
    shutil.copy(pattern / "changelog.d/.gitignore", folder / "changelog.d/.gitignore")
    hooks = (pattern / "tests/test_hooks.py").read_text()
    (folder / "tests/test_hooks.py").write_text(
        hooks.replace(PATTERN, name).replace(PATTERN.replace("-", "_"), module)
    )
    news = folder / f"changelog.d/+{date.today().year}-first.feature.md"
    news.write_text("The first version.\n")
    history = (pattern / "CHANGELOG.md").read_text().partition("\n## ")[0]
    (folder / "CHANGELOG.md").write_text(history.replace(PATTERN, name))
    (folder / f"src/{module}/__about__.py").write_text('__version__ = "0.1.0"\n')
    (folder / "pyproject.toml").write_text(_pyproject(name))
    return [path for path in folder.rglob("*") if path.is_file()]


def _pyproject(name: str) -> str:
    """The settings of the pattern, with a description and requirements of its own."""
    pattern = ROOT / "packages" / PATTERN / "pyproject.toml"
    text = pattern.read_text().replace(PATTERN, name)
    text = text.replace(PATTERN.replace("-", "_"), name.replace("-", "_"))
    description = tomllib.loads(pattern.read_text())["project"]["description"]
    text = text.replace(description, "Pruning for prune: say here what this package is for.")
    needed = [f"{CORE}[torch]{compatible_range(str(version(CORE)))}"]
    needed += [f"prune-toolkit{compatible_range(str(version('prune-toolkit')))}"]
    listed = ", ".join(f'"{each}"' for each in needed)
    return re.sub(r"(?ms)^dependencies = \[.*?\]$", f"dependencies = [{listed}]", text)


def with_lines_for(text: str, name: str) -> str:
    r"""Copy each line that is about the pattern alone, and extend each list that has it.

    >>> print(with_lines_for("  lottery\n[testenv:{tf,lottery}]\n  lottery: run", "prune-x"))
      lottery
      x
    [testenv:{tf,lottery,x}]
      lottery: run
      x: run
    """
    old, new = PATTERN.removeprefix("prune-"), name.removeprefix("prune-")
    lines = []
    for line in text.splitlines():
        listed = re.sub(rf"(?<=[{{,]){old}(?=[}},])", f"{old},{new}", line)
        lines.append(listed)
        named = {package for package in packages() if package in line}
        about = re.fullmatch(rf"\s*{old}(:.*)?", line) or named == {PATTERN}
        if about and listed == line:
            copied = line.replace(PATTERN, name)
            lines.append(re.sub(rf"^(\s*){old}(?=:|$)", rf"\g<1>{new}", copied))
    return "\n".join(lines)


def edit(path: Path, text: str) -> Path:
    """Write a file that exists."""
    path.write_text(text.rstrip("\n") + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="such as prune-example")
    name = parser.parse_args().name
    if not name.startswith("prune-") or name in packages():
        raise SystemExit(f"{name!r} must be a new name that begins with 'prune-'.")
    written = write_package(name)
    for file in ("tox.ini", "mkdocs.yml"):
        path = ROOT / file
        written.append(edit(path, with_lines_for(path.read_text(), name)))
    readme = ROOT / "README.md"
    row = f"| `{name}` | say here what it is for | `spread` |"
    text = re.sub(rf"^(\| `{PATTERN}` .*)$", rf"\g<1>\n{row}", readme.read_text(), flags=re.M)
    written.append(edit(readme, text))
    page = ROOT / "docs/history" / f"{name}.md"
    page.write_text(f'--8<-- "packages/{name}/CHANGELOG.md"\n')
    written.append(page)
    for path in written:
        print(path.relative_to(ROOT))
    print(
        f"\nNext: tox run -e {name.removeprefix('prune-')}, then write what it is for in README.md."
    )
    print(
        "`python scripts/plugin_directory.py`, in the environment `dev`, lists what it registers."
    )


if __name__ == "__main__":
    main()

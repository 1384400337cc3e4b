"""`prune new-plugin`: a distribution that is complete before its author changes a line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import date
from keyword import iskeyword
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated

import typer

from prune_core.__about__ import __version__
from prune_core.cli.output import AsJson, print_json
from prune_core.errors import PluginError
from prune_core.registry.directory import directory

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["command", "compatible_range", "write_template"]

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SUFFIX = ".template"  # keeps linters and test runners from reading a template as what it makes


def command(
    name: Annotated[str, typer.Argument(help="Name of the distribution, such as my-plugin.")],
    directory: Annotated[
        Path | None,
        typer.Option("--directory", "-d", help="Where to write it: ./NAME unless said."),
    ] = None,
    author: Annotated[str, typer.Option(help="Who holds the copyright.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write a new plugin: an algorithm, its tests, and all that publishing it needs."""
    target = directory or Path(name)
    written = write_template(target, name, author=author)
    if as_json:
        print_json({"directory": str(target), "files": written})
        return
    print(f"Wrote {len(written)} files into {target}. Next:")
    print(f"  cd {target}")
    print("  python -m pip install -e '.[test]'")
    print("  python -m pytest")
    print(f"  prune show {name}:spread")


def write_template(target: Path, name: str, *, author: str = "") -> list[str]:
    """Write the files of a new plugin and return their paths inside it.

    Args:
        target: The folder that becomes the plugin; it must not exist or be empty.
        name: Name of the distribution.
        author: Who holds the copyright.
    """
    from importlib.resources import files

    package = _package_name(name)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise PluginError(
            f"{target} exists and is not empty. Name another folder, for example "
            f"`prune new-plugin {name} --directory {target}-2`."
        )
    values = {
        "name": name,
        "package": package,
        "requirement": f"prune-core[torch]{compatible_range(__version__)}",
        "toolkit": f"prune-toolkit{_installed_range('prune-toolkit')}",
        "author": author or f"the authors of {name}",
        "year": str(date.today().year),
    }
    written = []
    for path, template in _templates(files("prune_toolkit") / "plugin_template"):
        inside = path.replace("__package__", package).removesuffix(SUFFIX)
        file = target / inside
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(template.read_text("utf-8")).substitute(values), "utf-8")
        written.append(inside)
    return sorted(written)


def compatible_range(version: str) -> str:
    """Return the versions of prune-core that a plugin made with this one works with.

    >>> compatible_range("0.3.1"), compatible_range("1.4.0"), compatible_range("0.4.0.dev0")
    ('>=0.3,<0.4', '>=1.4,<2', '>=0.4.0.dev0,<0.5')
    """
    major, minor = (int(number) for number in version.split(".")[:2])
    final = re.fullmatch(r"\d+(\.\d+)*", version) is not None
    lowest = f"{major}.{minor}" if final else version
    return f">={lowest},<{major + 1}" if major else f">={lowest},<0.{minor + 1}"


def _installed_range(distribution: str) -> str:
    """Return the versions that get along with the installed one, or "" where it is missing."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return compatible_range(version(distribution))
    except PackageNotFoundError:
        return ""


def _package_name(name: str) -> str:
    package = name.replace("-", "_")
    if not NAME.fullmatch(name):
        raise PluginError(
            f"{name!r} cannot be the name of a plugin: use lower-case letters, digits and single "
            f"dashes, and begin with a letter, such as {_suggestion(name)!r}."
        )
    if name in (*directory(), "torch") or package in sys.stdlib_module_names or iskeyword(package):
        raise PluginError(
            f"{name!r} means something to Python or to prune already. Choose a name of your own, "
            f"such as 'my-{name}'."
        )
    return package


def _suggestion(name: str) -> str:
    simpler = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return simpler if NAME.fullmatch(simpler) else f"my-{simpler}".strip("-")


def _templates(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for item in folder.iterdir():
        # Build tools and archives like to drop files whose name starts with a dot.
        path = prefix + re.sub("^dot_", ".", item.name)
        if item.is_dir():
            yield from _templates(item, f"{path}/")
        elif item.name.endswith(SUFFIX):
            yield path, item

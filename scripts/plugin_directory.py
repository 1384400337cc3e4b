"""Write what the packages of this repository register, and the page that lists every known plugin.

    python scripts/plugin_directory.py           write both files
    python scripts/plugin_directory.py --check   fail if they are not up to date

Run it where all packages are installed, as in the environment `dev`. What the packages register
goes into `directory.json` of prune-core, from which an error about an unknown name says what to
install. Plugins by others are described in `docs/plugins/others.toml`.
"""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import typer
from repo import ROOT, package_dir, packages

import prune_core
from prune_core.cli.plugin_commands import names_on
from prune_core.registry import manager

DIRECTORY = ROOT / "packages/prune-core/src/prune_core/registry/directory.json"
PAGE = ROOT / "docs/plugins/directory.md"
OTHERS = ROOT / "docs/plugins/others.toml"

HEAD = """# Plugin directory

Every package here is found by `prune list` once it is installed. Names are looked up bare (`l1`),
or with the package that brings them where two share a name (`prune-filter:l1`).

**Maintained here** means developed and tested in the repository of prune, with each change.
**Listed** means that its author asked for an entry and says which versions it was tested with.
"""

FOOT = """
## Have yours listed

Add an entry to `docs/plugins/others.toml` in a pull request:

```toml
[[plugin]]
name = "prune-example"
summary = "One sentence."
support = "listed"
tested = "prune-core 0.1, torch 2.8 to 2.13, Python 3.11 to 3.13"
source = "https://example.org/prune-example"
```

The plugin should pass the checks of `prune_core.testing`; `prune new-plugin` writes one that does.
"""


def registered() -> dict[str, dict[str, list[str]]]:
    """Return `{distribution: {kind: names}}` of the packages in this repository."""
    found = {plugin.distribution: plugin for plugin in prune_core.plugins()}
    missing = [name for name in packages() if name not in found]
    if missing:
        raise SystemExit(f"{', '.join(missing)} must be installed: tox run -e dev")
    return {
        name: {kind: sorted(names) for kind, names in sorted(_provided(found[name]).items())}
        for name in packages()
    }


def _provided(plugin: prune_core.Plugin) -> dict[str, list[str]]:
    """Return what a plugin brings by name, its commands among it."""
    page = typer.Typer()
    for hook in manager().hook.prune_register_commands.get_hookimpls():
        if hook.plugin_name == f"{plugin.distribution}:{plugin.name}":
            hook.function(app=page)
    commands = {"command": names_on(page)} if page.registered_commands else {}
    return {**{kind: list(names) for kind, names in plugin.provides.items()}, **commands}


def page(names: dict[str, dict[str, list[str]]], others: list[dict[str, Any]]) -> str:
    """Return the page, in Markdown."""
    rows = ["| package | what it is for | registers | support |", "| --- | --- | --- | --- |"]
    for name, kinds in names.items():
        described = "; ".join(
            f"{len(these)} {_plural(kind, these)}" for kind, these in kinds.items()
        )
        rows.append(f"| `{name}` | {_description(name)} | {described} | maintained here |")
    for plugin in sorted(others, key=lambda plugin: plugin["name"]):
        source = f"[`{plugin['name']}`]({plugin['source']})"
        rows.append(
            f"| {source} | {plugin['summary']} | | {plugin['support']}: {plugin['tested']} |"
        )
    sections = [HEAD, "\n".join(rows)]
    for name, kinds in names.items():
        lines = [f"- {_plural(kind, these)}: {_code(these)}" for kind, these in kinds.items()]
        sections.append(f"\n## {name}\n\n" + "\n".join(lines))
    return "\n".join(sections) + "\n" + FOOT


def _plural(kind: str, names: list[str]) -> str:
    return kind if len(names) == 1 else f"{kind}s"


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _description(package: str) -> str:
    project = tomllib.loads((package_dir(package) / "pyproject.toml").read_text())["project"]
    return str(project["description"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    names = registered()
    others = tomllib.loads(OTHERS.read_text()).get("plugin", [])
    for path, text in {
        DIRECTORY: json.dumps(names, indent=2) + "\n",
        PAGE: page(names, others),
    }.items():
        _settle(path, text, check=check)


def _settle(path: Path, text: str, *, check: bool) -> None:
    if path.exists() and path.read_text() == text:
        return
    if check:
        raise SystemExit(
            f"{path.relative_to(ROOT)} is not up to date: run `python scripts/plugin_directory.py`."
        )
    path.write_text(text)


if __name__ == "__main__":
    main()

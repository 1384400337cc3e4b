"""`prune doctor`: what is installed, and what is wrong with it."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import typer

from prune_core.cli.output import AsJson, console, grid, print_json
from prune_core.registry import Plugin, plugins
from prune_core.registry.directory import directory
from prune_core.registry.discovery import DISABLED_VARIABLE

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["command"]

# Their versions are read from their metadata: importing them takes seconds.
FRAMEWORKS = ("torch", "tensorflow", "tensorflow-cpu", "keras")
STYLES = {"ok": "green", "slow": "yellow", "disabled": "dim", "left out": "red"}


def command(context: typer.Context, as_json: AsJson = False) -> None:
    """Check the installation: versions, frameworks, and plugins that are left out and why."""
    found = plugins()
    errors = [plugin.error for plugin in found if plugin.error]
    further = [said for said in context.obj or () if not any(error in said for error in errors)]
    report = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in directory()},
        "frameworks": {name: _version(name) for name in FRAMEWORKS},
        "plugins": [_as_dict(plugin) for plugin in found],
        "warnings": further,
        "healthy": not (errors or further),
    }
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report["healthy"]:
        raise typer.Exit(1)


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _as_dict(plugin: Plugin) -> dict[str, Any]:
    status, reason = _status(plugin)
    return {
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": status,
        "reason": reason,
        "provides": {kind: sorted(names) for kind, names in plugin.provides.items()},
    }


def _status(plugin: Plugin) -> tuple[str, str]:
    if plugin.error is not None:
        return "left out", plugin.error
    if plugin.disabled:
        return "disabled", f"switched off by {DISABLED_VARIABLE}"
    if plugin.heavy:
        frameworks = " and ".join(plugin.heavy)
        return "slow", f"its hooks module imports {frameworks}, which makes every listing wait"
    return "ok", ""


def _print(report: dict[str, Any]) -> None:
    from rich.text import Text

    screen = console()
    versions = {"python": report["python"], **report["packages"], **report["frameworks"]}
    screen.print(grid(([name, Text(found or "–")] for name, found in versions.items())))
    screen.print()
    screen.print(grid(_plugin_row(plugin) for plugin in report["plugins"]))
    for message in report["warnings"]:
        screen.print(Text(f"Warning: {message}", style="yellow"))
    screen.print()
    if report["healthy"]:
        screen.print(Text("Nothing is wrong.", style="green"))
    else:
        screen.print(Text("Something needs your attention: see above.", style="red"))


def _plugin_row(plugin: dict[str, Any]) -> list[str | Text]:
    from rich.text import Text

    count = sum(len(names) for names in plugin["provides"].values())
    status = Text(plugin["status"], style=STYLES[plugin["status"]])
    said = plugin["reason"] or f"{count} name{'' if count == 1 else 's'}"
    return [plugin["distribution"], plugin["version"], status, Text(said)]

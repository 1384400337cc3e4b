"""Commands that other distributions add."""

import warnings
from collections.abc import Container

import typer
from typer.main import get_group

from prune_core.errors import PluginError, PluginWarning, UnknownNameError
from prune_core.registry import manager, plugins
from prune_core.registry.directory import distributions_of

__all__ = ["add_plugin_commands", "check_is_there", "names_on"]


def add_plugin_commands(app: typer.Typer, taken: Container[str]) -> None:
    """Call `prune_register_commands` of each plugin; one that fails adds nothing.

    Args:
        app: Where the commands go.
        taken: Names that no plugin may use.
    """
    for hook in manager().hook.prune_register_commands.get_hookimpls():
        # On a page of its own first, so that a failure half-way leaves nothing behind.
        page = typer.Typer()
        try:
            hook.function(*({"app": page}[name] for name in hook.argnames))
            names = names_on(page)
            for name in names:
                if name in taken:
                    raise PluginError(f"the command {name!r} is prune's own")
        except Exception as error:
            cause = "" if isinstance(error, PluginError) else f"{type(error).__name__}: "
            warnings.warn(
                f"Plugin {hook.plugin_name} adds no commands: {cause}{error}",
                PluginWarning,
                stacklevel=2,
            )
        else:
            app.registered_commands += page.registered_commands
            app.registered_groups += page.registered_groups


def names_on(page: typer.Typer) -> list[str]:
    """Return the names of a page's commands; what Typer cannot make a command of raises here."""
    if not (page.registered_commands or page.registered_groups):
        return []
    return list(get_group(page).commands)


def check_is_there(command: str) -> None:
    """Say what to install for a command that a known distribution brings and none here does."""
    known = distributions_of("command", command)
    if known and {plugin.distribution for plugin in plugins()}.isdisjoint(known):
        raise UnknownNameError(
            f"There is no command {command!r} here. `pip install {known[0]}` brings it."
        )

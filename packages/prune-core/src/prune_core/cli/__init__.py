"""The `prune` command line. It needs the extra `prune-core[cli]`, and says so."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line with the arguments of this process."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit(f"The `prune` command needs {error.name}: pip install 'prune-core[cli]'")
    from prune_core.cli.app import run

    run()

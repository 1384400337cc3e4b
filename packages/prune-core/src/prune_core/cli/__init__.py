"""The `prune` command line. It needs the extra `prune-core[cli]`, and says so."""

import os
import sys

from prune_core.errors import PruneError

__all__ = ["main"]

INTERRUPTED = 130  # what newer Typer makes, in silence, of Ctrl-C inside a command


def main() -> None:
    """Run the command line; whatever a user can cause ends in one sentence and exit code 1."""
    try:
        try:
            _run(sys.argv[1:])
        finally:
            # Here a broken pipe can still be caught; at the interpreter's end it cannot.
            sys.stdout.flush()
    except PruneError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Aborted.")
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            sys.exit("Aborted.")
        raise
    except BrokenPipeError:
        # Whoever read the output has left. What is still buffered must not be tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(arguments: list[str]) -> None:
    from prune_core.cli.quick import answered

    try:
        if answered(arguments):
            return
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit(f"The `prune` command needs {error.name}: pip install 'prune-core[cli]'")
    from prune_core.cli.app import build
    from prune_core.cli.plugin_commands import check_is_there

    app = build()
    if arguments:
        check_is_there(arguments[0])
    app(prog_name="prune")

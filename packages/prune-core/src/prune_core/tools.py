"""What pruners are put together from: the door to `prune_toolkit`, which prune-toolkit brings."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module 'prune_core.tools' has no attribute {name!r}")
    try:
        import prune_toolkit

        return getattr(prune_toolkit, name)
    except ModuleNotFoundError as error:
        if error.name not in ("prune_toolkit", "torch"):
            raise
        from prune_core.errors import MissingDependencyError

        raise MissingDependencyError(
            f"{name} comes with prune-toolkit: `pip install prune-toolkit`."
        ) from None

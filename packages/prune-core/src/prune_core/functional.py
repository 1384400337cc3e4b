"""Pruning one tensor of one module, with the names of `torch.nn.utils.prune`.

The door to `prune_filter.functional`, which prune-filter brings.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_filter.functional import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name.startswith(("__", "pytest")):  # what tools ask every module for
        raise AttributeError(f"module 'prune_core.functional' has no attribute {name!r}")
    return getattr(_functional(), name)


def __dir__() -> list[str]:
    from prune_core.errors import MissingDependencyError

    try:
        return sorted({*globals(), *dir(_functional())})
    except MissingDependencyError:  # tools that only look around are not to fail
        return sorted(globals())


def _functional() -> Any:
    try:
        import prune_filter.functional
    except ModuleNotFoundError as error:
        if error.name not in ("prune_filter", "torch"):
            raise
        from prune_core.errors import MissingDependencyError

        raise MissingDependencyError(
            "prune_core.functional comes with prune-filter: `pip install prune-filter`."
        ) from None
    return prune_filter.functional

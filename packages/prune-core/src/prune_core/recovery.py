"""Training a pruned model again: the door to `prune_recover`, which prune-recover brings."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_recover import recover as recover

__all__ = ["recover"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'prune_core.recovery' has no attribute {name!r}")
    try:
        import prune_recover

        return getattr(prune_recover, name)
    except ModuleNotFoundError as error:
        if error.name not in ("prune_recover", "torch"):
            raise
        from prune_core.errors import MissingDependencyError

        raise MissingDependencyError(
            f"prune_core.{name} comes with prune-recover: `pip install prune-recover`."
        ) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

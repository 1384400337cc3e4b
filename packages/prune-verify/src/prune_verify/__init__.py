"""Check certificates of pruned models, with numpy and nothing else."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_verify.checker import Rejected as Rejected
    from prune_verify.checker import Verdict as Verdict
    from prune_verify.checker import check as check

__all__ = ["Rejected", "Verdict", "check"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prune_verify import checker  # what only lists plugins does not wait for numpy

    return getattr(checker, name)

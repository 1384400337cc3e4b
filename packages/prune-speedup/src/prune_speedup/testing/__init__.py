"""What the author of a cost or of an operator's rule needs to test it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_speedup.testing.cost import check_cost as check_cost
    from prune_speedup.testing.rule import check_rule as check_rule

_HOME_OF = {"check_cost": "cost", "check_rule": "rule"}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_speedup.testing' has no attribute {name!r}")
    return getattr(import_module(f"prune_speedup.testing.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})

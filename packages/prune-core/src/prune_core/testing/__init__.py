"""What a plugin author needs to test a plugin.

Toy models need torch; fresh environments and wheels need pip and hatchling. What is checked comes
with the package whose idea it is: a pruner's promises with prune-toolkit or the engine of another
framework, a quantizer's with prune-quant, an exporter's with prune-export. Nothing of that is
imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prune_core.doors import brought

if TYPE_CHECKING:
    from prune_core.testing.check import check_pruner as check_pruner
    from prune_core.testing.environments import Environment as Environment
    from prune_core.testing.report import run_checks as run_checks
    from prune_core.testing.toys import MLP as MLP
    from prune_core.testing.toys import ConvNet as ConvNet
    from prune_core.testing.toys import LeNet as LeNet
    from prune_core.testing.toys import ResidualNet as ResidualNet
    from prune_core.testing.toys import make_batch as make_batch
    from prune_core.testing.toys import make_toy as make_toy
    from prune_core.testing.wheels import build_wheels as build_wheels
    from prune_core.testing.wheels import write_plugin as write_plugin
    from prune_export.testing import check_exporter as check_exporter
    from prune_quant.testing import check_quantizer as check_quantizer

_HOMES = {
    "check": ("check_pruner",),
    "environments": ("Environment",),
    "report": ("run_checks",),
    "toys": ("MLP", "ConvNet", "LeNet", "ResidualNet", "make_batch", "make_toy"),
    "wheels": ("build_wheels", "write_plugin"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

_DOORS = {
    "check_exporter": ("prune_export.testing", "prune-export"),
    "check_quantizer": ("prune_quant.testing", "prune-quant"),
}

__all__ = sorted({*_HOME_OF, *_DOORS})


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return brought(name, *_DOORS[name], wanted=f"prune_core.testing.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_core.testing' has no attribute {name!r}")
    return getattr(import_module(f"prune_core.testing.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

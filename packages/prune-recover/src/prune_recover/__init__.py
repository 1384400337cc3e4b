"""Training a pruned model again, by what its dense teacher says.

Names are imported when they are first used, so that `import prune_recover` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_recover.__about__ import __version__ as __version__
    from prune_recover.distiller import *  # noqa: F403
    from prune_recover.lora import *  # noqa: F403
    from prune_recover.reconstructor import *  # noqa: F403
    from prune_recover.report import *  # noqa: F403
    from prune_recover.training import *  # noqa: F403
    from prune_recover.zeros import *  # noqa: F403

_HOMES = {
    "__about__": ("__version__",),
    "distiller": ("Distiller",),
    "lora": ("merge_lora", "sparse_lora"),
    "reconstructor": ("Distillation",),
    "report": ("Recovery",),
    "training": ("recover",),
    "zeros": ("keep_zeros",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_recover' has no attribute {name!r}")
    value = getattr(import_module(f"prune_recover.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})

"""Pruning by what layers compute on data, with weights that make up for what is pruned.

Names are imported when they are first used, so that `import prune_oneshot` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_oneshot.__about__ import __version__ as __version__
    from prune_oneshot.activation_norm import *  # noqa: F403
    from prune_oneshot.alps import *  # noqa: F403
    from prune_oneshot.channel_obs import *  # noqa: F403
    from prune_oneshot.flap import *  # noqa: F403
    from prune_oneshot.ria import *  # noqa: F403
    from prune_oneshot.sparsegpt import *  # noqa: F403
    from prune_oneshot.wanda import *  # noqa: F403

_HOMES = {
    "__about__": ("__version__",),
    "activation_norm": ("ActivationNormPruner",),
    "alps": ("ALPSPruner",),
    "channel_obs": ("ChannelOBSPruner",),
    "flap": ("FLAPPruner",),
    "ria": ("RIAPruner",),
    "sparsegpt": ("SparseGPTPruner",),
    "wanda": ("WandaPruner",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_oneshot' has no attribute {name!r}")
    value = getattr(import_module(f"prune_oneshot.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})

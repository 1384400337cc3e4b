"""Quantising models, pruned or not.

Names are imported when they are first used, so that `import prune_quant` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_quant.__about__ import __version__ as __version__
    from prune_quant.bnn import *  # noqa: F403
    from prune_quant.dorefa import *  # noqa: F403
    from prune_quant.integer import distance as distance
    from prune_quant.lsq import *  # noqa: F403
    from prune_quant.naive import *  # noqa: F403
    from prune_quant.observer import *  # noqa: F403
    from prune_quant.qat import *  # noqa: F403
    from prune_quant.quantizer import Quantizer as Quantizer
    from prune_quant.schemes.quantize import *  # noqa: F403
    from prune_quant.schemes.table import round_to as round_to
    from prune_quant.wrapper import QuantizerModuleWrapper as QuantizerModuleWrapper

_HOMES = {
    "__about__": ("__version__",),
    "bnn": ("BNNQuantizer",),
    "dorefa": ("DoReFaQuantizer",),
    "integer": ("distance",),
    "lsq": ("LsqQuantizer",),
    "schemes.quantize": ("finish_qat", "prepare_qat", "quantize"),
    "naive": ("NaiveQuantizer",),
    "observer": ("ObserverQuantizer",),
    "qat": ("QAT_Quantizer",),
    "quantizer": ("Quantizer",),
    "schemes.table": ("round_to",),
    "wrapper": ("QuantizerModuleWrapper",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_quant' has no attribute {name!r}")
    value = getattr(import_module(f"prune_quant.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})

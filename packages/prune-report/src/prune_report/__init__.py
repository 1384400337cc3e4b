"""Reports of pruned models: one page to look at, a model card, and the data behind them.

Names are imported when they are first used. Nothing here needs torch, Keras or numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_report.__about__ import __version__ as __version__
    from prune_report.building import *  # noqa: F403
    from prune_report.document import *  # noqa: F403
    from prune_report.model_card import *  # noqa: F403
    from prune_report.notebook import *  # noqa: F403
    from prune_report.terminal import *  # noqa: F403
    from prune_report.whole_page import page as page
    from prune_report.writing import read as read
    from prune_report.writing import write as write

_HOMES = {
    "__about__": ("__version__",),
    "building": ("from_shrink", "of_search"),
    "model_card": ("card",),
    "notebook": ("as_html",),
    "whole_page": ("page",),
    "terminal": ("show",),
    "writing": ("read", "write"),
    "document": (
        "FORMAT",
        "STAGES",
        "Change",
        "Curve",
        "Document",
        "Experts",
        "File",
        "Indices",
        "Latency",
        "Layer",
        "Loading",
        "Proof",
        "Quality",
        "Removed",
        "ReportError",
        "Stayed",
        "Step",
        "Timing",
        "Trial",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_report' has no attribute {name!r}")
    value = getattr(import_module(f"prune_report.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})

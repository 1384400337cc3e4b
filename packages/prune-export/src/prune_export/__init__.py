"""Pruned models for other runtimes: ONNX, torch.export, OpenVINO, ExecuTorch and llama.cpp.

`prune_core.export(model, "model.onnx", example_inputs)` is the function `export` of this package.
Names are imported when they are first used, so that `import prune_export` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_export.__about__ import __version__ as __version__
    from prune_export.exporting import export as export

_HOME_OF = {"__version__": "__about__", "export": "exporting"}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_export' has no attribute {name!r}")
    return getattr(import_module(f"prune_export.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})

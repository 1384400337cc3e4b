"""One more format to export to: a folder of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from prune_core.errors import ConfigError

__all__ = ["huggingface"]


def huggingface(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write the folder that `from_pretrained` reads."""
    save: Any = getattr(model, "save_pretrained", None)
    if save is None:
        raise ConfigError(
            f"{type(model).__name__} has no save_pretrained: it is no model of transformers. "
            "Export it as safetensors."
        )
    save(path)

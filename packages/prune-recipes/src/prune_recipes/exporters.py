"""Two more formats to export to: a program of torch.export, and a folder of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from prune_core.errors import ConfigError
from prune_speedup.torch.record.inputs import arguments

__all__ = ["exported_program", "huggingface"]


def exported_program(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write a program of torch.export, for the shapes of the example."""
    if example_inputs is None:
        raise ConfigError("torch.export traces the model: give example_inputs.")
    args, kwargs = arguments(example_inputs)
    try:
        program = torch.export.export(model, args, kwargs)
    except Exception as error:
        raise ConfigError(
            f"torch.export cannot follow the model: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    torch.export.save(program, path)


def huggingface(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write the folder that `from_pretrained` reads."""
    save: Any = getattr(model, "save_pretrained", None)
    if save is None:
        raise ConfigError(
            f"{type(model).__name__} has no save_pretrained: it is no model of transformers. "
            "Export it as safetensors."
        )
    save(path)

"""The numbers of a model alone, without its graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from prune_core.files import replacing, write_safetensors
from prune_core.pruning.export import apart

__all__ = ["safetensors", "state_dict"]


def safetensors(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write the state dict as a safetensors file."""
    write_safetensors(path, apart(model.state_dict()))


def state_dict(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write the state dict with `torch.save`."""
    with replacing(path) as file:
        torch.save(model.state_dict(), file)

"""The result of a schedule or a search."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

from torch import nn

from prune_core.masking import Masks
from prune_core.masking.files import save_masks
from prune_schedule.store.trials import Trials

__all__ = ["Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a run, complete or stopped.

    Attributes:
        model: The wrapped model.
        masks: The masks in force.
        score: What `evaluate` made of it, or None where there is no such number.
        sparsities: The sparsity reached, by layer.
        trials: Everything that was tried.
        complete: False when the run was stopped before its end.
    """

    model: nn.Module
    masks: Masks
    score: float | None
    sparsities: dict[str, float]
    trials: Trials
    complete: bool

    def save_masks(self, path: str | PathLike[str], **header: Any) -> None:
        """Write the masks to a safetensors file.

        Args:
            path: Where to write them.
            **header: What `save_masks` takes besides.
        """
        save_masks(path, self.masks, **header)

"""The first step of a basic pruner: gather what the scores are computed from.

Data, metrics and masks share one shape, `{module name: tensor}` here and
`{module name: {tensor name: tensor}}` for masks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = ["DataCollector"]


class DataCollector(ABC):
    """Gathers one tensor for each wrapped module.

    Args:
        compressor: The pruner; its `get_modules_wrapper()` gives the modules.
    """

    def __init__(self, compressor: Pruner) -> None:
        self.compressor = compressor

    def reset(self) -> None:  # noqa: B027 - most collectors have nothing to forget
        """Forget what was gathered, before the next `collect()`."""

    @abstractmethod
    def collect(self) -> dict[str, Tensor]:
        """Return `{module name: tensor}`."""

"""What the pruners share that score single weights by what they are multiplied with."""

from __future__ import annotations

from typing import ClassVar, Unpack

from torch import nn

from prune_core import ConfigError
from prune_core.pruning.pruner import ConfigList
from prune_toolkit import (
    DataCollector,
    InputNormCollector,
    NMSparsityAllocator,
    OneShotPruner,
    SparsityAllocator,
    allocator_for,
)
from prune_toolkit.allocate import check_n_of_m
from prune_toolkit.basic import Options
from prune_toolkit.calibration.calibrate import Calibrate

__all__ = ["INPUT_TYPES", "InputWeightPruner", "check_calibrate", "check_pattern"]

LAYERS = ("Linear", "Conv1D", "Conv1d", "Conv2d", "Conv3d")
INPUT_TYPES = (*LAYERS, "Embedding", "MultiheadAttention")


def check_calibrate(pruner: object, calibrate: Calibrate | None) -> Calibrate:
    """Return what runs the model; refuse a pruner that has nothing."""
    if calibrate is None:
        raise ConfigError(
            f"{type(pruner).__name__} scores by what goes through the layers, and got nothing to "
            "run the model with. Give calibrate=, a function that takes the model and runs it on "
            "some batches."
        )
    return calibrate


def check_pattern(n: int | None, m: int | None) -> None:
    """Refuse half of a pattern."""
    if (n is None) != (m is None):
        raise ConfigError(f"n is {n!r} and m is {m!r}; give both, such as n=2 and m=4, or neither.")


class InputWeightPruner(OneShotPruner):
    """Prunes single weights by a score of weight and input; subclasses say which.

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: Which scores are compared: one of `modes`.
        n: With `m`, keep n of every m weights along the input instead of a mode.
        m: See `n`.
        **options: `calibrate=`, which is needed, and what else `BasicPruner` takes.
    """

    default_types = LAYERS
    supported_types = INPUT_TYPES
    needs_data: ClassVar[bool] = True
    modes: ClassVar[tuple[str, ...]] = ("row", "normal", "block", "global", "owl")

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str,
        *,
        n: int | None = None,
        m: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_calibrate(self, options.get("calibrate"))
        check_pattern(n, m)
        self.n, self.m = n, m
        super().__init__(model, config_list, mode, **options)

    def collector(self) -> DataCollector:
        """Measure how long each input is, over all rows that pass."""
        return InputNormCollector(self, *self.calibration_of([]))

    def allocator(self) -> SparsityAllocator:
        """Compare as the mode says, or within groups of m."""
        if self.n is None or self.m is None:
            return allocator_for(self, self.mode, channels=False)
        allocator = NMSparsityAllocator(self, self.n, self.m)
        check_n_of_m(self, self.n, self.m)
        return allocator

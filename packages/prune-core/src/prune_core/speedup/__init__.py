"""Units and masks become a small model that is proved to compute the same."""

from prune_core.speedup.report import SpeedupReport
from prune_core.speedup.run import ModelSpeedup, shrink
from prune_core.speedup.surgery import load_pruned, save_pruned

__all__ = ["ModelSpeedup", "SpeedupReport", "load_pruned", "save_pruned", "shrink"]

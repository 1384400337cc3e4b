"""Units and masks become a small model that is proved to compute the same."""

from prune_speedup.torch.report import SpeedupReport
from prune_speedup.torch.speedup import ModelSpeedup, shrink
from prune_speedup.torch.surgery import load_pruned, save_pruned

__all__ = ["ModelSpeedup", "SpeedupReport", "load_pruned", "save_pruned", "shrink"]

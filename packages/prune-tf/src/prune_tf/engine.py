"""The engine for Keras models: `prune_core.get_engine("keras")` is this module."""

from prune_tf import testing
from prune_tf.one_shot import prune
from prune_tf.speedup import SpeedupReport, load_pruned, save_pruned, shrink, units

__all__ = ["SpeedupReport", "load_pruned", "prune", "save_pruned", "shrink", "testing", "units"]

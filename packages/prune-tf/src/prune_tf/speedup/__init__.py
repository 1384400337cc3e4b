"""Masked channels become really smaller layers, and both models are compared."""

from prune_tf.speedup.find_units import units
from prune_tf.speedup.report import Change, SpeedupReport
from prune_tf.speedup.run import shrink
from prune_tf.speedup.saving import load_pruned, save_pruned

__all__ = ["Change", "SpeedupReport", "load_pruned", "save_pruned", "shrink", "units"]

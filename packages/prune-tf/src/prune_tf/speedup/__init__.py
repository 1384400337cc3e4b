"""Masked channels become really smaller layers, and both models are compared."""

from prune_tf.speedup.report import Change, SpeedupReport
from prune_tf.speedup.run import shrink

__all__ = ["Change", "SpeedupReport", "shrink"]

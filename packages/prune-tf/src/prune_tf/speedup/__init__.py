"""Masked channels become really smaller layers, and the smaller model is compared with the masked one."""

from prune_tf.speedup.report import Change, SpeedupReport
from prune_tf.speedup.run import shrink

__all__ = ["Change", "SpeedupReport", "shrink"]

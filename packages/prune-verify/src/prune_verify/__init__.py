"""Check certificates of pruned models, with numpy and nothing else."""

from prune_verify.checker import Rejected, Verdict, check

__all__ = ["Rejected", "Verdict", "check"]

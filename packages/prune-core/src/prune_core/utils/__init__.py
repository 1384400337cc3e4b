"""Where scripts for the predecessor look for `count_flops_params`."""

from prune_core.utils.counter import count_flops_params

__all__ = ["count_flops_params"]

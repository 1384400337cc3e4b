"""Parameters that are cut over several processes, as FSDP2's `fully_shard` leaves them.

While a layer runs, its parameters are whole. Between two steps each process has a part, and masks,
which are whole everywhere, are cut in the same way where the two meet. A part is recognised by what
it can do, so that nothing distributed is imported where nothing is distributed.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

__all__ = ["is_sharded", "local", "sharded_like", "whole"]


def is_sharded(tensor: Tensor) -> bool:
    """Whether a process has but a part of a tensor."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; every process has to ask."""
    return cast("Any", tensor).full_tensor() if is_sharded(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor, not a copy."""
    return cast("Any", tensor)._local_tensor if is_sharded(tensor) else tensor


def sharded_like(mask: Tensor, parameter: Tensor) -> Tensor:
    """Cut a mask, which every process has, as a parameter is cut."""
    if not is_sharded(parameter):
        return mask
    from torch.distributed.tensor import distribute_tensor

    part = cast("Any", parameter)
    # No process needs what another has, so none is asked.
    return distribute_tensor(mask, part.device_mesh, part.placements, src_data_rank=None)

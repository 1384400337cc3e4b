"""Adding up what the processes of a distributed run have gathered, each from its own batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["everyone", "is_distributed", "over_processes", "total_count"]


def everyone(value: Any) -> list[Any]:
    """Return what every process has for a value, in the order of their numbers."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def is_distributed() -> bool:
    """Whether there are other processes to add up with."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def total_count(count: int) -> int:
    """Return the sum of a count over all processes."""
    return sum(everyone(count))


def over_processes(
    own: Mapping[str, Tensor], devices: Mapping[str, torch.device]
) -> dict[str, Tensor]:
    """Add up tensors by name; every process gets the same sums, so all arrive at the same masks.

    A process that has nothing under a name takes part with zeros: were it to skip a sum, the
    others would wait for it forever.

    Args:
        own: What this process has gathered.
        devices: Every name that any process may have, in the order of all processes, and where
            its tensor is. Names that no process has are left out of the result.
    """
    # A copy is an ordinary tensor even if it was gathered in inference mode.
    mine = {name: own[name].clone() for name in devices if name in own}
    if not is_distributed():
        return mine
    reports = everyone({name: (tuple(tensor.shape), tensor.dtype) for name, tensor in mine.items()})
    everywhere = {name: form for report in reports for name, form in report.items()}
    total = {}
    for name, device in devices.items():
        if name in everywhere:
            shape, dtype = everywhere[name]
            summed = mine.get(name)
            if summed is None:
                summed = torch.zeros(shape, dtype=dtype, device=device)
            total[name] = summed.contiguous()
            torch.distributed.all_reduce(total[name])
    return total

"""What the processes of a distributed run have gathered, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prune_core.masking import PrunerModuleWrapper

__all__ = ["everyone", "summed"]


def everyone(value: Any) -> list[Any]:
    """Return what every process has for a value, in the order of their numbers."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def summed(
    seen: int, sums: Mapping[str, Tensor], wrappers: Mapping[str, PrunerModuleWrapper]
) -> tuple[int, dict[str, Tensor]]:
    """Add up what the processes of a distributed run have gathered, each from its own batches.

    All of them get the same result, so all arrive at the same masks. A process that has nothing
    for a module, or had no batch at all, takes part with zeros: were it to skip a sum, the others
    would wait for it forever.
    """
    # A copy is an ordinary tensor even if it was gathered in inference mode.
    own = {name: sums[name].clone() for name in wrappers if name in sums}
    mine = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in own.items()}
    reports = everyone((seen, mine))
    if len(reports) == 1:
        return seen, own
    forms = {name: form for _, report in reports for name, form in report.items()}
    total = {}
    for name in wrappers:
        if name in forms:
            shape, dtype = forms[name]
            device = wrappers[name].parameter(wrappers[name].target).device
            part = own[name] if name in own else torch.zeros(shape, dtype=dtype, device=device)
            total[name] = part.contiguous()
            torch.distributed.all_reduce(total[name])
    return sum(count for count, _ in reports), total

"""Run a model in wider numbers than its own, so that rounding can be told from error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from prune_core.traversal import modules_in, named_parameters
from prune_speedup.torch.parts import put
from prune_speedup.torch.record.higher_precision import is_narrow

__all__ = ["narrowest", "one_at_a_time", "type_to_prove_in", "widen", "widened"]

_AT_MOST = 1 << 30
"""The bytes that a model in wider numbers may take, if its operators can be told them one by one.
Beyond, memory is scarcer than the time that it takes to widen each tensor whenever it is read."""

_SHARE = 0.8
"""How much of the memory that is free it may take."""


_at_once: ContextVar[bool] = ContextVar("at_once", default=True)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Leave a model as it is meanwhile: it is mapped from files, and may be larger than memory."""
    token = _at_once.set(False)
    try:
        yield
    finally:
        _at_once.reset(token)


def narrowest(model: nn.Module) -> torch.dtype:
    """The type of the narrowest floating-point numbers among a model's parameters."""
    kinds = {each.dtype for each in named_parameters(model).values() if each.is_floating_point()}
    return min(kinds, key=lambda kind: kind.itemsize, default=torch.float32)


def type_to_prove_in(model: nn.Module) -> torch.dtype | None:
    """Single precision for a model of half precision; its own numbers for any other."""
    half = narrowest(model).itemsize < torch.float32.itemsize
    return torch.float32 if half else None


def widen(model: nn.Module, dtype: torch.dtype) -> None:
    """Give a model its numbers in a wider type; a `Snapshot` brings the old ones back.

    Where that takes much memory, nothing is done: a recorder then widens each tensor when it is
    read.
    """
    if not _at_once.get():
        return
    tensors = [
        tensor for tensor in (*model.parameters(), *model.buffers()) if is_narrow(tensor, dtype)
    ]
    needed = sum(tensor.numel() * dtype.itemsize for tensor in tensors)
    if needed > _AT_MOST and _is_told_one_by_one(model):
        return
    if tensors and needed > _SHARE * _free(tensors[0].device):
        return
    for tensor in tensors:
        put(tensor, tensor.data.to(dtype), None)


def _is_told_one_by_one(model: nn.Module) -> bool:
    """Whether every operator that reads a parameter lets its numbers be widened on their way there.

    A convolution does not: torch compares the types of its input and its bias before any recorder
    sees them. So only kinds that are known to are taken, of which most language models are made.
    """
    holders = (module for module in modules_in(model) if [*module.parameters(recurse=False)])
    return all(
        isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm) or _is_written_norm(module)
        for module in holders
    )


def _is_written_norm(module: nn.Module) -> bool:
    """Whether it is one of the many root mean square norms that are written in Python."""
    return type(module).__name__.endswith("RMSNorm") and not isinstance(module, nn.RMSNorm)


def _free(device: torch.device) -> float:
    """The bytes that are free on a device, as far as that can be told."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return float("inf")


def widened(tree: Any, dtype: torch.dtype) -> Any:
    """Example inputs in a wider type."""
    if isinstance(tree, torch.Tensor):
        return tree.to(dtype) if is_narrow(tree, dtype) else tree
    if isinstance(tree, dict):
        return {name: widened(item, dtype) for name, item in tree.items()}
    if isinstance(tree, list | tuple):
        items = [widened(item, dtype) for item in tree]
        return items if isinstance(tree, list) else tuple(items)
    return tree

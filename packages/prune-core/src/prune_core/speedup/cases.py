"""What a small model is run on beside its example."""

from collections.abc import Mapping
from typing import Any

import torch

from prune_core.graph.inputs import tensors_in

__all__ = ["other_batch"]


def other_batch(example_inputs: Any) -> tuple[str, Any]:
    """Inputs of another batch size, taken to be what the first axis of the first tensor is."""
    sizes = [tensor.shape[0] for _, tensor in tensors_in(example_inputs) if tensor.ndim]
    if not sizes or not sizes[0]:
        return "", None
    size = sizes[0]
    other = 3 if size == 2 else 2
    name = f"a batch of {other} where the example has {size}"
    return name, _resized(example_inputs, size, other)


def _resized(tree: Any, size: int, other: int) -> Any:
    if isinstance(tree, torch.Tensor):
        if not tree.ndim or tree.shape[0] != size:
            return tree
        return tree[torch.arange(other, device=tree.device) % size]
    if isinstance(tree, Mapping):
        return {key: _resized(item, size, other) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_resized(item, size, other) for item in tree)
    return tree

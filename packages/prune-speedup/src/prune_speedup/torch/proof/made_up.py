"""Inputs that are made of the example, and harder to fool than a repetition of it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from prune_core.errors import ConfigError, shown

__all__ = ["MADE_UP", "made_up"]


def made_up(name: str, example_inputs: Any) -> tuple[str, Any]:
    """What an input is called in a report, and the input.

    The numbers are drawn from a generator of their own: twice the same, and nobody else's change.

    Args:
        name: One of `MADE_UP`.
        example_inputs: What it is made of.

    Raises:
        ConfigError: Nothing is called so.
    """
    if name not in MADE_UP:
        names = ", ".join(map(repr, (*MADE_UP, "length", "training")))
        raise ConfigError(
            f"verify_inputs has {shown(name)}; each must be an input of the model, or one of "
            f"{names}, which are made of the example."
        )
    said, change = MADE_UP[name]
    generator = torch.Generator().manual_seed(0)
    return said, _changed(example_inputs, lambda tensor: change(tensor, generator))


def _random(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Numbers between the least and the largest of a tensor; whole numbers in another order."""
    if not tensor.numel() or tensor.dtype == torch.bool:
        return tensor
    if not tensor.is_floating_point():
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        return tensor.flatten()[order].view(tensor.shape)
    low, high = tensor.aminmax()
    if not bool(torch.isfinite(high - low)):
        return tensor  # a mask of infinities
    drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    return low + (high - low) * drawn.to(tensor)


def _permuted(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Steps in another order, of all tensors that are as long in the same one."""
    if tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    generator.manual_seed(0)
    order = torch.randperm(tensor.shape[1], generator=generator).to(tensor.device)
    return tensor.index_select(1, order)


MADE_UP: dict[str, tuple[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]]] = {
    "random": ("random numbers of the example's shape and range", _random),
    "permuted": ("the example's tokens in another order", _permuted),
}
"""By the name that users give: what a report calls it, and how a tensor is made."""


def _changed(tree: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same inputs with other tensors."""
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: _changed(item, change) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_changed(item, change) for item in tree)
    return tree

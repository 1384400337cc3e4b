"""Weights that are zero, and stay so in any training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from prune_core.compressed import model_of
from prune_core.errors import MaskError, nearest
from prune_core.masking import PrunerModuleWrapper, bare, check_model
from prune_core.masking.sharded import local, sharded_like

__all__ = ["Zeros", "keep_zeros", "zeros_of"]

Masks = Mapping[str, Mapping[str, Any]]


class Zeros:
    """Where weights of a model are zero.

    Attributes:
        places: Each tensor, and where it stays zero.
    """

    def __init__(self, places: list[tuple[Tensor, Tensor]]) -> None:
        self.places = places

    @property
    def count(self) -> int:
        """How many values stay zero."""
        return sum(int(removed.sum()) for _, removed in self.places)

    @torch.no_grad()
    def write(self) -> None:
        """Write the zeros again."""
        for tensor, removed in self.places:
            tensor.masked_fill_(removed, 0)


def zeros_of(model: nn.Module, masks: Masks | None = None) -> Zeros:
    """Find the zeros of a model: where masks have some, or in its weights.

    Raises:
        MaskError: A mask is for something that is not there, or has another shape.
    """
    model = model_of(model)
    check_model(model)
    with bare(model) as root:
        found = _in_weights(root) if masks is None else _in_masks(root, masks)
        return Zeros([(tensor, removed) for tensor, removed in found if bool(removed.any())])


@contextmanager
def keep_zeros(model: nn.Module, masks: Masks | None = None) -> Iterator[Zeros]:
    """Keep the zeros of a plain model through whatever training happens inside of the block.

    They are written again after each step of any optimizer, so that neither momentum nor an
    optimizer that mixes values can fill them.

    Args:
        model: A model with zeros in its weights, such as `prune_core.unwrap(model)` gives. What is
            still wrapped needs nothing, since its masks are in force.
        masks: Where the zeros are, as a pruner returns them. Without, every zero in a weight of two
            and more axes counts; biases and the weights of norms are left alone, and so is a
            weight that is zero throughout, for that is how some layers begin.

    Example:
        ```python
        with keep_zeros(model):
            trainer.train()
        ```
    """
    zeros = zeros_of(model, masks)
    zeros.write()
    hook = register_optimizer_step_post_hook(lambda *_: zeros.write())
    try:
        yield zeros
    finally:
        hook.remove()
        zeros.write()


def _in_weights(model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    masked = {
        id(module.parameter(name))
        for module in model.modules()
        if isinstance(module, PrunerModuleWrapper)
        for name in module.masked_names
    }
    for parameter in model.parameters():
        if parameter.ndim < 2 or id(parameter) in masked or not parameter.is_floating_point():
            continue
        own = local(parameter.detach())
        removed = own == 0
        if not bool(removed.all()):
            yield own, removed


def _in_masks(model: nn.Module, masks: Masks) -> Iterator[tuple[Tensor, Tensor]]:
    named = dict(model.named_modules())
    for name, tensors in masks.items():
        if name not in named:
            raise MaskError(
                f"masks has {name!r}; the model has no such module.{nearest(name, named)}"
            )
        for key, mask in tensors.items():
            parameter = getattr(named[name], key, None)
            if mask is None or parameter is None:
                continue
            if tuple(mask.shape) != tuple(parameter.shape):
                raise MaskError(
                    f"The mask of {name}.{key} has the shape {tuple(mask.shape)}; the tensor has "
                    f"{tuple(parameter.shape)}. After shrink, nothing is masked any more: leave "
                    "masks out."
                )
            removed = sharded_like(mask.to(parameter.device) == 0, parameter)
            yield local(parameter.detach()), local(removed)

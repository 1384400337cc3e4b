"""Prune a tensor with a mask that is already there."""

import torch
from torch import Tensor
from torch.nn import Module

from prune_filter.functional._errors import MisuseError
from prune_filter.functional.method import BasePruningMethod


class CustomFromMask(BasePruningMethod):
    """Prune where a given mask is 0.

    Args:
        mask: a mask of the tensor's shape.
    """

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Combine the given mask with that of earlier pruning."""
        if default_mask.shape != self.mask.shape:
            raise MisuseError(
                f"The mask has shape {tuple(self.mask.shape)} and the tensor "
                f"{tuple(default_mask.shape)}; the shapes must be the same."
            )
        # A boolean mask multiplies as it is, without becoming as large as the weights first.
        dtype = torch.bool if self.mask.dtype == torch.bool else default_mask.dtype
        return default_mask * self.mask.to(default_mask.device, dtype)

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Module, name: str, mask: Tensor
    ) -> BasePruningMethod:
        """Prune the parameter `name` of `module` where `mask` is 0."""
        return super().apply(module, name, mask=mask)


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prune a parameter where a given mask is 0.

    Args:
        module: the module, changed in place.
        name: the name of one of its parameters.
        mask: a mask of the parameter's shape.

    Returns:
        `module`.

    >>> import torch
    >>> layer = torch.nn.Linear(5, 3)
    >>> custom_from_mask(layer, "bias", torch.tensor([0, 1, 0])).bias_mask
    tensor([0., 1., 0.])
    """
    CustomFromMask.apply(module, name, mask)
    return module

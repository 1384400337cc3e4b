"""Prune single entries of a tensor: none, random ones, or the smallest."""

import torch
from torch import Tensor
from torch.nn import Module

from prune_filter.functional.amounts import _units_to_prune, _validate_pruning_amount_init
from prune_filter.functional.method import BasePruningMethod
from prune_toolkit.allocate.selection import smallest


class Identity(BasePruningMethod):
    """Prune nothing, but set up everything that pruning needs, with a mask of ones."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return `default_mask`."""
        return default_mask

    @classmethod
    def apply(cls, module: Module, name: str) -> BasePruningMethod:  # type: ignore[override]
        """Set up the parameter `name` of `module` without pruning it."""
        return super().apply(module, name)


class RandomUnstructured(BasePruningMethod):
    """Prune entries chosen at random among those left.

    Args:
        amount: a fraction of the entries left when a float, their number when an int.
    """

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        _validate_pruning_amount_init(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Draw a number for each entry of `t` and prune those with the largest."""
        count = _units_to_prune(self.amount, t.numel())
        mask = default_mask.clone(memory_format=torch.contiguous_format)
        if count:
            drawn = torch.rand_like(t, requires_grad=False).reshape(-1)
            mask.view(-1)[drawn.topk(count).indices] = 0
        return mask

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Module, name: str, amount: float
    ) -> BasePruningMethod:
        """Prune `amount` of the entries of `name` in `module`, at random."""
        return super().apply(module, name, amount=amount)


class L1Unstructured(BasePruningMethod):
    """Prune the entries that are smallest in magnitude among those left.

    Of entries of equal magnitude the first ones go.

    Args:
        amount: a fraction of the entries left when a float, their number when an int.
    """

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        _validate_pruning_amount_init(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Prune the smallest entries of `t` in magnitude."""
        count = _units_to_prune(self.amount, t.numel())
        mask = default_mask.clone(memory_format=torch.contiguous_format)
        if count:
            [pruned] = smallest([t], count, transform=torch.abs)
            mask.masked_fill_(pruned, 0)
        return mask

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Module, name: str, amount: float, importance_scores: Tensor | None = None
    ) -> BasePruningMethod:
        """Prune `amount` of the entries of `name` in `module`, the smallest ones."""
        return super().apply(module, name, amount=amount, importance_scores=importance_scores)


def identity(module: Module, name: str) -> Module:
    """Set up a parameter for pruning without pruning any of it.

    Args:
        module: the module, changed in place.
        name: the name of one of its parameters.

    Returns:
        `module`.

    >>> identity(torch.nn.Linear(2, 3), "bias").bias_mask
    tensor([1., 1., 1.])
    """
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: float) -> Module:
    """Prune entries of a parameter at random.

    Args:
        module: the module, changed in place.
        name: the name of one of its parameters.
        amount: a fraction of the entries left when a float, their number when an int.

    Returns:
        `module`.

    >>> layer = random_unstructured(torch.nn.Linear(2, 3), "weight", amount=1)
    >>> int((layer.weight_mask == 0).sum())
    1
    """
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(
    module: Module, name: str, amount: float, importance_scores: Tensor | None = None
) -> Module:
    """Prune the entries of a parameter that are smallest in magnitude.

    Args:
        module: the module, changed in place.
        name: the name of one of its parameters.
        amount: a fraction of the entries left when a float, their number when an int.
        importance_scores: compared in place of the parameter's values; of the same shape.

    Returns:
        `module`.

    >>> layer = l1_unstructured(torch.nn.Linear(2, 3), "weight", amount=0.5)
    >>> list(layer.state_dict())
    ['bias', 'weight_orig', 'weight_mask']
    """
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module

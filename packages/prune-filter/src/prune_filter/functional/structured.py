"""Prune whole channels of a tensor: random ones, or those of the smallest norm."""

import torch
from torch import Tensor
from torch.nn import Module

from prune_filter.functional.amounts import _units_to_prune, _validate_pruning_amount_init
from prune_filter.functional.channels import (
    _channel_mask,
    _compute_norm,
    _validate_pruning_dim,
    _validate_structured_pruning,
)
from prune_filter.functional.method import BasePruningMethod


class RandomStructured(BasePruningMethod):
    """Prune channels chosen at random among those left.

    Args:
        amount: a fraction of the channels left when a float, their number when an int.
        dim: the dimension that channels are counted along.
    """

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1) -> None:
        _validate_pruning_amount_init(amount)
        self.amount = amount
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Draw a number for each channel of `t` and prune those with the smallest."""
        count = _channels_to_prune(self.amount, t, self.dim)
        if count == 0:
            return default_mask
        drawn = torch.rand(t.shape[self.dim], device="cpu")
        keep = drawn > drawn.kthvalue(count).values
        return _channel_mask(t, self.dim, keep, default_mask)

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Module, name: str, amount: float, dim: int = -1
    ) -> BasePruningMethod:
        """Prune `amount` of the channels of `name` in `module`, at random."""
        return super().apply(module, name, amount=amount, dim=dim)


class LnStructured(BasePruningMethod):
    """Prune the channels of the smallest L`n` norm among those left.

    Args:
        amount: a fraction of the channels left when a float, their number when an int.
        n: the order of the norm, as `p` of `torch.norm`: a number, `inf`, `-inf`, `"fro"`, `"nuc"`.
        dim: the dimension that channels are counted along.
    """

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, n: float | str, dim: int = -1) -> None:
        _validate_pruning_amount_init(amount)
        self.amount = amount
        self.n = n
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Prune the channels of `t` of the smallest norm."""
        count = _channels_to_prune(self.amount, t, self.dim)
        norm = _compute_norm(t, self.n, self.dim)
        if count == 0:
            return default_mask
        keep = torch.zeros_like(norm, dtype=torch.bool)
        keep[norm.topk(len(norm) - count).indices] = True
        return _channel_mask(t, self.dim, keep, default_mask)

    @classmethod
    def apply(  # type: ignore[override]
        cls,
        module: Module,
        name: str,
        amount: float,
        n: float | str,
        dim: int,
        importance_scores: Tensor | None = None,
    ) -> BasePruningMethod:
        """Prune `amount` of the channels of `name` in `module`, those of the smallest norm."""
        return super().apply(
            module, name, amount=amount, n=n, dim=dim, importance_scores=importance_scores
        )


def random_structured(module: Module, name: str, amount: float, dim: int) -> Module:
    """Prune channels of a parameter at random.

    Args:
        module: the module, changed in place.
        name: the name of one of its parameters.
        amount: a fraction of the channels left when a float, their number when an int.
        dim: the dimension that channels are counted along.

    Returns:
        `module`.

    >>> layer = random_structured(torch.nn.Linear(5, 3), "weight", amount=3, dim=1)
    >>> int((layer.weight == 0).all(dim=0).sum())
    3
    """
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Module,
    name: str,
    amount: float,
    n: float | str,
    dim: int,
    importance_scores: Tensor | None = None,
) -> Module:
    """Prune the channels of a parameter that have the smallest L`n` norm.

    Args:
        module: the module, changed in place.
        name: the name of one of its parameters.
        amount: a fraction of the channels left when a float, their number when an int.
        n: the order of the norm, as `p` of `torch.norm`: a number, `inf`, `-inf`, `"fro"`, `"nuc"`.
        dim: the dimension that channels are counted along.
        importance_scores: the norm is taken of these in place of the parameter; of the same shape.

    Returns:
        `module`.

    >>> layer = torch.nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.0]]))
    >>> ln_structured(layer, "weight", amount=1, n=2, dim=0).weight_mask
    tensor([[1., 1.],
            [0., 0.]])
    """
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def _channels_to_prune(amount: float, t: Tensor, dim: int) -> int:
    _validate_structured_pruning(t)
    _validate_pruning_dim(t, dim)
    return _units_to_prune(amount, t.shape[dim])

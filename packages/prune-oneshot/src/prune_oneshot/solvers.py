"""What the layer solvers share: the order of features, exact counts, a factor of the inverse."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from prune_core import ConfigError, PruneError
from prune_toolkit import LayerProblem
from prune_toolkit.allocate.per_layer import keep_in_rows
from prune_toolkit.reconstruct.solve import damp, factor

__all__ = [
    "MASKED",
    "ChannelsTogether",
    "check_damping",
    "goes_first",
    "hessian_of",
    "inverse_factor",
    "keep_largest",
    "keep_of_each",
]


DEAD, MASKED = -1.0, -2.0


def check_damping(damping: float) -> None:
    """Refuse a damping that lets a matrix be singular."""
    if not damping > 0:
        raise ConfigError(f"damping is {damping!r}; it must be a number greater than 0.")


def hessian_of(name: str, gram: Tensor, damping: float) -> Tensor:
    """Damp the Gram matrices of a layer in place; inputs that are always zero get a diagonal of 1.

    Raises:
        PruneError: They cannot be made positive.
    """
    dead = gram.diagonal(dim1=-2, dim2=-1) == 0
    hessian = damp(gram, damping)
    hessian.diagonal(dim1=-2, dim2=-1).add_(dead)
    # A sum of what is not finite is not finite either, and takes no memory.
    if not bool(hessian.sum().isfinite()):
        raise PruneError(
            f"The products of the inputs of {name!r} are not finite. Look at the data, or run the "
            "model in float32."
        )
    return hessian


def inverse_factor(hessian: Tensor) -> Tensor:
    """Return the upper U with `H⁻¹ = Uᵀ U`, without ever making the inverse.

    Read from the last row to the first, the Cholesky factor of the reversed matrix is an upper V
    with `H = V Vᵀ`; U is its inverse.
    """
    # Each line frees what the one before it has made: these matrices are the largest there are.
    hessian = hessian.flip(-1, -2)
    hessian = factor(hessian)
    hessian = hessian.flip(-1, -2)
    inverse = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    # Column by column in memory, as LAPACK writes, so that it can be solved in place.
    inverse = inverse.expand_as(hessian).contiguous().mT
    torch.linalg.solve_triangular(hessian, inverse, upper=True, out=inverse)
    return inverse


def goes_first(problem: LayerProblem) -> Tensor | None:
    """Return what is less than any cost where a weight goes before all others, and 0 elsewhere.

    A weight that is masked already goes first, and then those whose input is always zero. None
    stands for a layer that has neither.
    """
    dead = problem.statistics.squares.unsqueeze(1) == 0
    if problem.alive is None and not bool(dead.any()):
        return None
    first = torch.zeros_like(problem.weight)
    first.masked_fill_(dead, DEAD)
    if problem.alive is not None:
        first.masked_fill_(~problem.alive, MASKED)
    return first


def keep_largest(scores: Tensor, lost: int) -> Tensor:
    """Return a mask without the `lost` smallest of all scores; of equal ones the first go."""
    return keep_in_rows(scores.reshape(1, -1), lost).view(scores.shape)


def keep_of_each(scores: Tensor, n: int, axis: int) -> Tensor:
    """Return a mask with the n largest along an axis."""
    order = scores.argsort(dim=axis, descending=True, stable=True)
    kept = torch.zeros_like(scores, dtype=torch.bool)
    return kept.scatter_(axis, order.narrow(axis, 0, n), True)


class ChannelsTogether:
    """Puts the features of a convolution so that the input channels of one place are neighbours.

    Groups of m lie along the input channels, as sparse kernels want them; a weight has all places
    of a channel together. Without groups the order stays.
    """

    def __init__(self, module: nn.Module, features: int, m: int | None) -> None:
        self.places = prod(getattr(module, "kernel_size", (1,))) if m is not None else 1
        self._stays = self.places == 1
        order = torch.arange(features).view(-1, self.places).t().flatten()
        self._order, self._back = order, order.argsort()

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return a weight `(groups, outputs, features)` in this order."""
        return tensor if self._stays else tensor[..., self._order.to(tensor.device)]

    def square(self, matrix: Tensor) -> Tensor:
        """Return a matrix of features by features in this order."""
        return matrix if self._stays else self(matrix)[..., self._order.to(matrix.device), :]

    def undo(self, tensor: Tensor) -> Tensor:
        """Put the features of a weight back."""
        return tensor if self._stays else tensor[..., self._back.to(tensor.device)]

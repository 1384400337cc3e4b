"""The least squares behind reconstruction: the weights that stay, fitted to what a layer computed.

With the rows X of a layer's input, its weight W, and the places M that may differ from zero:

    minimise ‖X Vᵀ − X Wᵀ‖² + λ ‖V − W‖²    over all V that are zero outside M

All that is needed of X is `G = XᵀX`. For `H = G + λ I` the solution has no gradient inside M:

    (V H − W H) ∘ M = 0

Where all rows of M are alike, as when input channels are removed, that is one system of equations.
Otherwise each row has its own, and all of them are solved together by conjugate gradients, whose
steps are products of matrices. An example with one output: of two inputs that are always equal,
the second is removed. Then G is [[g, g], [g, g]], and W = [1, 2] becomes V = [3, 0] for a small λ.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prune_core.errors import PruneError

__all__ = ["NotPositiveError", "damp", "damped", "factor", "refitted"]

_ROUNDS = 60
_CLOSE = 1e-4


class NotPositiveError(PruneError):
    """Products of inputs that are not those of any numbers."""


def damped(gram: Tensor, damping: float) -> Tensor:
    """Return `G + λ I`, with λ a share of the mean of the diagonal; never a singular matrix.

    Args:
        gram: One for each group, `(groups, features, features)`.
        damping: The share.
    """
    return damp(gram.clone(), damping)


def damp(gram: Tensor, damping: float) -> Tensor:
    """Add `λ I` in place; see `damped`."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    added = damping * diagonal.mean(-1, keepdim=True)
    # A layer whose inputs are all zero has nothing to be fitted to.
    diagonal += torch.where(added > 0, added, torch.ones_like(added))
    return gram


def factor(matrix: Tensor) -> Tensor:
    """Return the lower Cholesky factors of matrices, damping those that are not quite positive.

    Rounding can leave a sum of products with eigenvalues a little below zero.
    """
    for more in (0.0, 1e-6, 1e-4, 1e-2):
        attempt = damped(matrix, more) if more else matrix
        lower: Tensor
        lower, wrong = torch.linalg.cholesky_ex(attempt)
        if not bool(wrong.any()):
            return lower
    raise NotPositiveError(
        "the products of its inputs are not those of any numbers: rounding has left them with "
        "negative squares. Give a larger damping, or run the model in float32."
    )


def refitted(weight: Tensor, support: Tensor, gram: Tensor, damping: float) -> Tensor:
    """Return the weights on a support that give, on the inputs behind a Gram matrix, what all gave.

    Args:
        weight: `(groups, outputs, features)`.
        support: Where a weight may differ from zero, of the same shape.
        gram: `(groups, features, features)`.
        damping: How strongly weights are held where they were, as a share of the mean of the
            Gram matrix's diagonal.
    """
    hessian = damped(gram, damping)
    if bool((support == support[:, :1]).all()):
        return torch.stack(
            [_of_columns(w, s[0], h) for w, s, h in zip(weight, support, hessian, strict=True)]
        )
    return _of_each_row(weight, support, hessian)


def _of_columns(weight: Tensor, kept: Tensor, hessian: Tensor) -> Tensor:
    """Solve `V_k H_kk = W H_k` for the columns k that are kept: `V_k = W_k + W_r H_rk H_kk⁻¹`."""
    fitted = torch.zeros_like(weight)
    if kept.all():
        return weight.clone()
    if kept.any():
        lost = weight[:, ~kept].to(hessian.dtype) @ hessian[~kept][:, kept]
        change = torch.cholesky_solve(lost.t(), factor(hessian[kept][:, kept])).t()
        fitted[:, kept] = (weight[:, kept].to(hessian.dtype) + change).to(weight.dtype)
    return fitted


def _of_each_row(weight: Tensor, support: Tensor, hessian: Tensor) -> Tensor:
    """Conjugate gradients on all rows at once, preconditioned by the diagonal."""
    hessian = hessian.to(weight.dtype)
    scale = hessian.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
    fitted = weight * support
    residual = ((weight - fitted) @ hessian) * support
    direction = residual / scale
    power = (residual * direction).sum(-1, keepdim=True)
    goal = _CLOSE**2 * power
    for _ in range(_ROUNDS):
        if bool((power <= goal).all()):
            break
        ahead = (direction @ hessian) * support
        along = (direction * ahead).sum(-1, keepdim=True)
        step = torch.where(along > 0, power / along, torch.zeros_like(power))
        fitted += step * direction
        residual -= step * ahead
        shaped = residual / scale
        following = (residual * shaped).sum(-1, keepdim=True)
        turn = torch.where(power > 0, following / power, torch.zeros_like(power))
        direction = shaped + turn * direction
        power = following
    return fitted

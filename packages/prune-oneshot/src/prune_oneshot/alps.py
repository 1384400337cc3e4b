"""Single weights by alternating between the least squares of a layer and its sparsity."""

from __future__ import annotations

from typing import NamedTuple, Self, Unpack

import torch
from torch import Tensor, nn

from prune_core import ConfigError
from prune_core.amount import number_to_prune
from prune_core.pruning.pruner import ConfigList
from prune_oneshot.layerwise import LayerwisePruner
from prune_oneshot.solvers import (
    MASKED,
    ChannelsTogether,
    check_damping,
    goes_first,
    hessian_of,
    keep_largest,
    keep_of_each,
)
from prune_toolkit import LayerProblem, LayerSolver
from prune_toolkit.basic import Options
from prune_toolkit.reconstruct.solve import refitted

__all__ = ["ALPSPruner", "ALPSSolver"]

_RHO = 0.1
_EVERY = 3
# How ρ grows: fast while many weights still change sides, slowly when few do.
_GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))


class _Scaled(NamedTuple):
    """A matrix of products for features of length 1, and its eigenvalues and eigenvectors."""

    length: Tensor
    hessian: Tensor
    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, hessian: Tensor, dtype: torch.dtype) -> Self:
        """Scale and decompose a matrix in its own precision; keep what came of it in `dtype`."""
        length = hessian.diagonal(dim1=-2, dim2=-1).sqrt()
        scaled = hessian / (length.unsqueeze(-1) * length.unsqueeze(-2))
        return cls(*(x.to(dtype) for x in (length, scaled, *torch.linalg.eigh(scaled))))


class ALPSSolver(LayerSolver):
    """Minimises `‖X Vᵀ − X Wᵀ‖²` over sparse V by the alternating direction method (ADMM).

    V is the solution of a least squares that is pulled towards a sparse D, and D is V cut to size,
    each corrected by what they still differ in. The pull grows until no weight changes sides;
    then the weights that stay are fitted exactly. Features are scaled to length 1 before.

    Args:
        damping: What is added to the diagonal of XᵀX, as a share of its mean.
        iterations: After how many to stop at the latest.
        n: With `m`, keep n of every m.
        m: See `n`.
    """

    def __init__(
        self,
        damping: float = 0.01,
        iterations: int = 300,
        n: int | None = None,
        m: int | None = None,
    ) -> None:
        check_damping(damping)
        if not isinstance(iterations, int) or iterations < 1:
            raise ConfigError(
                f"iterations is {iterations!r}; it must be a whole number of at least 1."
            )
        self.damping, self.iterations, self.n, self.m = damping, iterations, n, m

    def solve(self, problem: LayerProblem) -> tuple[Tensor, Tensor]:
        """Return a boolean mask and the new weight."""
        order = ChannelsTogether(problem.module, problem.weight.shape[-1], self.m)
        seen, first = problem.statistics, goes_first(problem)

        def make() -> _Scaled:
            hessian = order.square(hessian_of(problem.name, seen.gram, self.damping))
            return _Scaled.of(hessian, problem.weight.dtype)

        scaled = seen.once(("scaled", order.places, problem.weight.dtype), make)
        first = None if first is None else order(first)
        kept = order.undo(self._chosen(order(problem.weight), scaled, first, problem.sparsity))
        return kept, refitted(problem.weight, kept, seen.gram, self.damping)

    def _chosen(
        self, weight: Tensor, scaled: _Scaled, first: Tensor | None, sparsity: float
    ) -> Tensor:
        """Return which weights stay."""
        values, vectors = scaled.values.unsqueeze(1), scaled.vectors
        dense = weight * scaled.length.unsqueeze(1)
        wanted = dense @ scaled.hessian
        sparse, pull, rho = dense, torch.zeros_like(dense), _RHO
        before: Tensor | None = None
        kept = self._cut(dense, first, sparsity)
        for iteration in range(1, self.iterations + 1):
            target = (wanted - pull + rho * sparse) @ vectors
            fitted = (target / (values + rho)) @ vectors.transpose(1, 2)
            towards = fitted + pull / rho
            kept = self._cut(towards, first, sparsity)
            sparse = towards * kept
            pull = pull + rho * (fitted - sparse)
            if iteration % _EVERY == 0:
                if before is not None:
                    changed = int((kept != before).sum())
                    if not changed:
                        break
                    share = changed / max(1, int(kept.sum()))
                    rho *= next(growth for least, growth in _GROWTH if share >= least)
                before = kept
        return kept

    def _cut(self, weight: Tensor, first: Tensor | None, sparsity: float) -> Tensor:
        size = weight.abs()
        masked = None if first is None else first == MASKED
        if first is not None:
            size = torch.where(first < 0, first, size)
        if self.m is None or self.n is None:
            lost = number_to_prune(sparsity, size.numel())
            return keep_largest(size, lost if masked is None else max(lost, int(masked.sum())))
        grouped = size.view(*size.shape[:-1], -1, self.m)
        kept = keep_of_each(grouped, self.n, axis=-1).flatten(-2)
        return kept if masked is None else kept & ~masked


class ALPSPruner(LayerwisePruner):
    """Prunes single weights layer by layer, choosing and fitting in turns.

        minimise ‖X Vᵀ − X Wᵀ‖² + λ ‖V − W‖²    over all V with a given number of zeros

    by the alternating direction method, over the inputs X of a layer and its weight W. What stays
    is fitted exactly at the end. It takes more time than SparseGPT: an eigendecomposition of XᵀX
    and some hundred products of matrices for each layer.

    Meng et al., ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language
    Models, https://arxiv.org/abs/2406.07831

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: What settles how much each module loses: `"normal"` takes its ratio, `"global"` and
            `"block"` compare scores over modules first, and `"owl"` takes less from blocks with
            many outliers.
        damping: λ as a share of the mean of the diagonal of XᵀX.
        iterations: After how many to stop at the latest.
        n: With `m`, keep n of every m weights along the input.
        m: See `n`.
        **options: `calibrate=`, which is needed, and what else `BasicPruner` takes. `sequential`
            is True unless given: each block sees what the pruned blocks before it give.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_oneshot import ALPSPruner
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(8, 4))
        >>> inputs = torch.randn(64, 8)
        >>> pruner = ALPSPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_types": ["Linear"]}],
        ...     calibrate=lambda model: model(inputs),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["weight"].sum())
        16
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "normal",
        damping: float = 0.01,
        iterations: int = 300,
        *,
        n: int | None = None,
        m: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.layer_solver = ALPSSolver(damping, iterations, n, m)
        super().__init__(model, config_list, mode, damping, n=n, m=m, **options)

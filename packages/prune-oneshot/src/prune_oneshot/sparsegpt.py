"""Single weights, column by column, with the columns to the right making up for them."""

from __future__ import annotations

from typing import Unpack

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
    inverse_factor,
    keep_largest,
    keep_of_each,
)
from prune_toolkit import LayerProblem, LayerSolver
from prune_toolkit.basic import Options

__all__ = ["SparseGPTPruner", "SparseGPTSolver"]

# Within a block, so many columns hand on their errors one by one before the rest gets them at
# once: the first is slow in any library, the second is a product of matrices.
_FEW = 16


class SparseGPTSolver(LayerSolver):
    """Goes through the columns of a weight, and spreads the error of each over those that follow.

    With `H = XᵀX + λ I` and the upper U of `H⁻¹ = Uᵀ U`, a weight of column j costs
    `(w / U_jj)²`. In each block of columns the cheapest are chosen, or the cheapest of every m.
    Then each column hands on what it loses: with `e = w_lost / U_jj`, the columns k > j get
    `w_k ← w_k − e · U_jk`.

    Args:
        blocksize: How many columns are compared with each other.
        damping: λ as a share of the mean of the diagonal of XᵀX.
        n: With `m`, keep n of every m.
        m: See `n`.
    """

    def __init__(
        self,
        blocksize: int = 128,
        damping: float = 0.01,
        n: int | None = None,
        m: int | None = None,
    ) -> None:
        if not isinstance(blocksize, int) or blocksize < 1:
            raise ConfigError(
                f"blocksize is {blocksize!r}; it must be a whole number of at least 1."
            )
        check_damping(damping)
        self.blocksize, self.damping, self.n, self.m = blocksize, damping, n, m

    def solve(self, problem: LayerProblem) -> tuple[Tensor, Tensor]:
        """Return a boolean mask and the new weight."""
        order = ChannelsTogether(problem.module, problem.weight.shape[-1], self.m)
        seen = problem.statistics

        def make() -> Tensor:
            # No name is given to what is large, so that it is freed as soon as it can be.
            return inverse_factor(
                order.square(hessian_of(problem.name, seen.take_gram(), self.damping))
            ).to(problem.weight.dtype)

        factor = seen.once("inverse factor", make).to(problem.weight.dtype)
        first = goes_first(problem)
        columns = _Columns(order(problem.weight), factor, None if first is None else order(first))
        few = _FEW if self.m is None else self.m * -(-_FEW // self.m)
        blocksize = few * -(-self.blocksize // few) if self.m else self.blocksize
        for start in range(0, len(columns), blocksize):
            end = min(start + blocksize, len(columns))
            if self.m is None:
                columns.choose(start, end, problem.sparsity)
            errors = columns.hand_on(start, end, few, self.n, self.m)
            columns.spread(start, end, len(columns), errors)
        mask, weight = columns.result()
        mask, weight = order.undo(mask), order.undo(weight)
        return (mask if problem.alive is None else mask & problem.alive), weight


class _Columns:
    """The columns of a weight, as rows in memory, so that working on one is fast.

    Shapes are `(groups, features, outputs)`.
    """

    def __init__(self, weight: Tensor, factor: Tensor, first: Tensor | None) -> None:
        # A copy even where one output or one feature needs none: it is written into.
        self.weight = weight.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        self.factor = factor
        self.first = None if first is None else first.transpose(1, 2)
        self.diagonal = factor.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        self.kept = torch.ones_like(self.weight, dtype=torch.bool)
        self.lost = 0

    def __len__(self) -> int:
        return self.weight.shape[1]

    def _costs(self, start: int, end: int) -> Tensor:
        here = slice(start, end)
        costs = (self.weight[:, here] / self.diagonal[:, here]).square_()
        if self.first is None:
            return costs
        return torch.where(self.first[:, here] < 0, self.first[:, here], costs)

    def choose(self, start: int, end: int, sparsity: float) -> None:
        """Choose the cheapest of a block; so many that the whole layer comes out exact."""
        costs = self._costs(start, end)
        wanted = number_to_prune(sparsity, end * self.weight[:, 0].numel()) - self.lost
        if self.first is not None:
            wanted = max(wanted, int((self.first[:, start:end] == MASKED).sum()))
        lost = min(max(0, wanted), costs.numel())
        self.kept[:, start:end] = keep_largest(costs, lost)
        self.lost += lost

    def hand_on(self, start: int, end: int, few: int, n: int | None, m: int | None) -> Tensor:
        """Let the columns of a block hand on their errors within the block; return the errors."""
        # What a column is multiplied with to give its error; each becomes the error in its turn.
        errors = self._lost_over_diagonal(start, end)
        for first in range(start, end, few):
            last = min(first + few, end)
            here = slice(first, last)
            weight, error_of = self.weight[:, here], errors[:, first - start : last - start]
            shares = self.factor[:, here, here].unsqueeze(-1).unbind(1)
            parts = (part.unsqueeze(2).unbind(1) for part in (weight, error_of))
            each = zip(*parts, shares, strict=True)
            for after, (column, error, share) in enumerate(each, 1):
                if m is not None and n is not None and (after - 1) % m == 0:
                    at = first + after - 1
                    kept = keep_of_each(self._costs(at, at + m), n, axis=1)
                    self.kept[:, at : at + m] = kept
                    error_of[:, after - 1 : after - 1 + m] = self._lost_over_diagonal(at, at + m)
                error *= column
                if after < last - first:
                    weight[:, after:].addcmul_(share[:, after:], error, value=-1)
            self.spread(first, last, end, error_of)
        return errors

    def _lost_over_diagonal(self, start: int, end: int) -> Tensor:
        return ~self.kept[:, start:end] / self.diagonal[:, start:end]

    def spread(self, start: int, end: int, upto: int, errors: Tensor) -> None:
        """Give the columns from `end` on their share of the errors of those before."""
        if end < upto:
            share = self.factor[:, start:end, end:upto].transpose(1, 2)
            self.weight[:, end:upto].baddbmm_(share, errors, alpha=-1)

    def result(self) -> tuple[Tensor, Tensor]:
        """Return mask and weight, `(groups, outputs, features)`."""
        return self.kept.transpose(1, 2), self.weight.mul_(self.kept).transpose(1, 2)


class SparseGPTPruner(LayerwisePruner):
    """Prunes single weights layer by layer, and lets the others make up for them at once.

    With `H = XᵀX + λ I` over the inputs X of a layer, and the upper U of `H⁻¹ = Uᵀ U`:

        score[i, j] = (w[i, j] / U[j, j])²          compared within blocks of columns
        w[i, k] ← w[i, k] − w[i, j] / U[j, j] · U[j, k]     for all k > j, if w[i, j] is pruned

    Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot,
    https://arxiv.org/abs/2301.00774

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: What settles how much each module loses: `"normal"` takes its ratio, `"global"` and
            `"block"` compare scores over modules first, and `"owl"` takes less from blocks with
            many outliers.
        blocksize: How many columns are compared with each other.
        damping: λ as a share of the mean of the diagonal of XᵀX.
        n: With `m`, keep n of every m weights along the input.
        m: See `n`.
        **options: `calibrate=`, which is needed, and what else `BasicPruner` takes. `sequential`
            is True unless given: each block sees what the pruned blocks before it give.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_oneshot import SparseGPTPruner
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(8, 4))
        >>> inputs = torch.randn(64, 8)
        >>> pruner = SparseGPTPruner(
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
        blocksize: int = 128,
        damping: float = 0.01,
        *,
        n: int | None = None,
        m: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.layer_solver = SparseGPTSolver(blocksize, damping, n, m)
        super().__init__(model, config_list, mode, damping, n=n, m=m, **options)

"""What the pruners share that solve one layer after the other."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from torch import Tensor, nn

from prune_core.pruning.pruner import ConfigList
from prune_oneshot.inputs import LAYERS, check_calibrate, check_pattern
from prune_oneshot.solvers import hessian_of, inverse_factor
from prune_oneshot.wanda import WandaMetricsCalculator
from prune_toolkit import (
    DataCollector,
    InputCollector,
    MetricsCalculator,
    NMSparsityAllocator,
    OneShotPruner,
    SparsityAllocator,
    Statistics,
    allocator_for,
)
from prune_toolkit.allocate import check_n_of_m
from prune_toolkit.basic import Options

__all__ = ["InverseHessianCollector", "LayerwisePruner"]


class InverseHessianCollector(InputCollector):
    """Gathers `1 / sqrt((H⁻¹)_jj)` of each input feature j, with the damped `H = XᵀX + λ I`.

    Times the absolute weight, it is the root of what the layer's output loses with that weight,
    when all others make up for it.

    Args:
        compressor: The pruner.
        calibrate: Runs the model on some batches.
        batches: Stop after this many, or None.
        damping: λ as a share of the mean of the diagonal of XᵀX.
    """

    products: ClassVar[bool] = True

    def __init__(
        self, compressor: Any, calibrate: Any, batches: int | None = None, damping: float = 0.01
    ) -> None:
        super().__init__(compressor, calibrate, batches)
        self.damping = damping

    def of(self, statistics: Statistics) -> Tensor:
        """Return the factors."""
        factor = inverse_factor(hessian_of("a layer", statistics.gram, self.damping))
        return factor.square().sum(-2).rsqrt()


class LayerwisePruner(OneShotPruner):
    """Prunes single weights with a solver that knows the products of a layer's inputs."""

    default_types = supported_types = LAYERS
    needs_data: ClassVar[bool] = True
    modes: ClassVar[tuple[str, ...]] = ("normal", "block", "global", "owl")

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str,
        damping: float,
        *,
        n: int | None = None,
        m: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_calibrate(self, options.get("calibrate"))
        check_pattern(n, m)
        self.damping, self.n, self.m = damping, n, m
        options.setdefault("sequential", True)
        super().__init__(model, config_list, mode, **options)

    def collector(self) -> DataCollector:
        """Measure what each input's weights would cost, for modes that compare modules."""
        return InverseHessianCollector(self, *self.calibration_of([]), self.damping)

    def calculator(self) -> MetricsCalculator:
        """Multiply weights and factors."""
        return WandaMetricsCalculator(self)

    def allocator(self) -> SparsityAllocator:
        """Settle how much each module loses."""
        if self.n is not None and self.m is not None:
            allocator = NMSparsityAllocator(self, self.n, self.m)
            check_n_of_m(self, self.n, self.m)
            return allocator
        return allocator_for(self, self.mode, channels=False)

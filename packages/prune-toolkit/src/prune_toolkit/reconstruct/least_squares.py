"""Weights that stay, fitted to what their layer computed before."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from prune_core.errors import ConfigError
from prune_toolkit.calibration.calibrate import Calibrate
from prune_toolkit.calibration.layers import has_bias
from prune_toolkit.calibration.precision import wide
from prune_toolkit.reconstruct.base import LayerFit, LayerReconstructor
from prune_toolkit.reconstruct.solve import refitted

__all__ = ["LeastSquares"]


class LeastSquares(LayerReconstructor):
    """Fits the weights that stay to the outputs that all weights gave, by least squares.

    For the rows X of a layer's input, its weight W, and the places where its new weight V may
    differ from zero:

        minimise ‖X Vᵀ − X Wᵀ‖² + λ ‖V − W‖²,    λ = damping · mean of the diagonal of XᵀX

    A layer with a bias b gets the best bias with it, so that only deviations from the mean of X
    have to be fitted. What a removed channel said in other words than its neighbours is lost;
    what it said in the same words is kept.

    Args:
        damping: How strongly weights are held where they were.
        calibrate: Takes the model and runs it on some batches; that of the pruner unless given.
        batches: After how many batches to stop, or None.

    Example:
        ```python
        pruner = WandaPruner(
            model, rules, calibrate=calibrate, reconstruct=LeastSquares(damping=0.1)
        )
        ```
    """

    products: ClassVar[bool] = True

    def __init__(
        self,
        damping: float = 0.01,
        calibrate: Calibrate | None = None,
        batches: int | None = None,
    ) -> None:
        super().__init__(calibrate, batches)
        if not damping > 0:
            raise ConfigError(f"damping is {damping!r}; it must be a number greater than 0.")
        self.damping = damping

    def fit(self, layer: LayerFit) -> tuple[Tensor, Tensor | None]:
        """Return the fitted weight, and what the bias has to make up for."""
        seen = layer.statistics
        weight = wide(layer.weight)
        if not has_bias(layer.module):
            return refitted(weight, layer.support, seen.gram, self.damping), None
        fitted = refitted(weight, layer.support, seen.covariance, self.damping)
        return fitted, missing(weight - fitted, seen.mean)


def missing(change: Tensor, mean: Tensor) -> Tensor:
    """Return what outputs lack on average when their weights are less by so much."""
    lacking: Tensor = (change.to(mean.dtype) @ mean.unsqueeze(-1)).squeeze(-1)
    return lacking.flatten()

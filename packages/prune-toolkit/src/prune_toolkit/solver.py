"""What chooses the mask of a layer and the weights that stay in one go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from prune_toolkit.calibration.statistics import Statistics

__all__ = ["LayerProblem", "LayerSolver"]


@dataclass(frozen=True)
class LayerProblem:
    """A layer that is to lose some of its weights.

    Attributes:
        name: Its name.
        module: The layer.
        weight: What it computes with now, in float32 or better: `(groups, outputs, features)`.
        alive: Which weights are not masked yet, of the same shape, or None for all.
        sparsity: The ratio that it is to lose, what is masked already included.
        statistics: Of its inputs, with their products.
    """

    name: str
    module: nn.Module
    weight: Tensor
    alive: Tensor | None
    sparsity: float
    statistics: Statistics


class LayerSolver(ABC):
    """Prunes one layer at a time, knowing the Gram matrix of its inputs.

    A pruner that sets `layer_solver` is asked layer by layer, instead of getting all its masks
    from scores at once.
    """

    @abstractmethod
    def solve(self, problem: LayerProblem) -> tuple[Tensor, Tensor]:
        """Return a boolean mask and the new weight, both `(groups, outputs, features)`.

        Args:
            problem: The weight, how much goes, and what was seen of the inputs.
        """

"""Single weights by their share of their row and column, times their input."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from prune_core import ConfigError
from prune_core.pruning.pruner import ConfigList
from prune_oneshot.inputs import InputWeightPruner
from prune_oneshot.wanda import WandaMetricsCalculator
from prune_toolkit import MetricsCalculator
from prune_toolkit.basic import Options
from prune_toolkit.calibration.layers import matrix_of, weight_of

__all__ = ["RIAMetricsCalculator", "RIAPruner"]


class RIAMetricsCalculator(WandaMetricsCalculator):
    """Scores a weight by `(|W_ij| / Σ_row + |W_ij| / Σ_column) · data_ij^power`.

    Args:
        pruner: Whose weights are meant.
        power: The exponent of the data, 0.5 in the paper.
    """

    def __init__(self, pruner: Any, power: float = 0.5) -> None:
        super().__init__(pruner)
        if not power >= 0:
            raise ConfigError(f"power is {power!r}; it must be a number of at least 0.")
        self.power = power

    def weight_of(self, name: str) -> Tensor:
        """Return of each weight its share of its row and of its column."""
        module = self.pruner.get_modules_wrapper()[name].module
        matrix = matrix_of(module, super().weight_of(name))
        # A row or column of zeros has no shares, and none of its weights counts for anything.
        rows = matrix.sum(2, keepdim=True).clamp_min(torch.finfo(matrix.dtype).tiny)
        columns = matrix.sum(1, keepdim=True).clamp_min(torch.finfo(matrix.dtype).tiny)
        return weight_of(module, matrix / rows + matrix / columns)

    def score(self, weight: Tensor, seen: Tensor) -> Tensor:
        """Return the scores of one module."""
        return weight * seen.to(weight.dtype) ** self.power


class RIAPruner(InputWeightPruner):
    """Prunes the single weights that matter least in their row and column, and to their input.

    `score[i, j] = (|W[i, j]| / Σ |W[i, :]| + |W[i, j]| / Σ |W[:, j]|) · ‖X[j]‖₂^power`. Shares
    instead of sizes keep whole input or output channels from being pruned away.

    Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language
    Models (ICLR 2024), https://openreview.net/forum?id=Tr0lPx9woF

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"normal"` compares the weights of each module, `"row"` those of each output,
            `"block"` those of each block, such as a layer of a transformer, `"global"` those of
            all modules of an entry, and `"owl"` takes less from blocks with many outliers.
        power: The exponent of the length of an input.
        n: With `m`, keep n of every m weights along the input instead of a mode.
        m: See `n`.
        **options: `calibrate=`, which is needed, `sequential=`, `reconstruct=`, and what else
            `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_oneshot import RIAPruner
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> inputs = torch.randn(16, 4)
        >>> pruner = RIAPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_types": ["Linear"]}],
        ...     calibrate=lambda model: model(inputs),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["weight"].sum())
        4
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "normal",
        power: float = 0.5,
        *,
        n: int | None = None,
        m: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.power = power
        super().__init__(model, config_list, mode, n=n, m=m, **options)

    def calculator(self) -> MetricsCalculator:
        """Multiply shares and powers of lengths."""
        return RIAMetricsCalculator(self, self.power)

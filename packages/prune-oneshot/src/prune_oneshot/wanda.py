"""Single weights by their size, times the length of what they are multiplied with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor, nn

from prune_core.masking.sharded import whole
from prune_core.pruning.pruner import ConfigList
from prune_oneshot.inputs import InputWeightPruner
from prune_toolkit import MetricsCalculator
from prune_toolkit.basic import Options
from prune_toolkit.calibration.precision import wide

__all__ = ["WandaMetricsCalculator", "WandaPruner"]


class WandaMetricsCalculator(MetricsCalculator):
    """Scores a weight by `|W_ij| · data_ij`, with data such as the collector `input_norm` has.

    Args:
        pruner: Whose weights are meant.
    """

    def __init__(self, pruner: Any) -> None:
        super().__init__()
        self.pruner = pruner

    def calculate_metrics(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the products, in float32 or better."""
        return {name: self.score(self.weight_of(name), seen) for name, seen in data.items()}

    def weight_of(self, name: str) -> Tensor:
        """Return the absolute weight of a module."""
        wrapper = self.pruner.get_modules_wrapper()[name]
        return wide(whole(wrapper.parameter(wrapper.target).detach())).abs()

    def score(self, weight: Tensor, seen: Tensor) -> Tensor:
        """Return the scores of one module."""
        return weight * seen.to(weight.dtype)


class WandaPruner(InputWeightPruner):
    """Prunes the single weights that are smallest times the length of their input.

    `score[i, j] = |W[i, j]| · ‖X[j]‖₂`, with `‖X[j]‖₂` the length of input feature j over all
    rows that pass. Scores are compared within each row: all outputs lose equally many.

    Sun et al., A Simple and Effective Pruning Approach for Large Language Models,
    https://arxiv.org/abs/2306.11695

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"row"` compares the weights of each output, `"normal"` those of each module,
            `"block"` those of each block, such as a layer of a transformer, `"global"` those of
            all modules of an entry, and `"owl"` takes less from blocks with many outliers.
        n: With `m`, keep n of every m weights along the input instead of a mode.
        m: See `n`.
        **options: `calibrate=`, which is needed, `sequential=`, `reconstruct=`, and what else
            `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_oneshot import WandaPruner
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> inputs = torch.randn(16, 4)
        >>> pruner = WandaPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_types": ["Linear"]}],
        ...     calibrate=lambda model: model(inputs),
        ... )
        >>> model, masks = pruner.compress()
        >>> masks["0"]["weight"].sum(1).tolist()
        [2, 2]
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "row",
        *,
        n: int | None = None,
        m: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(model, config_list, mode, n=n, m=m, **options)

    def calculator(self) -> MetricsCalculator:
        """Multiply weights and lengths."""
        return WandaMetricsCalculator(self)

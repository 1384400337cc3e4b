"""What any criterion has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from prune_core.compat import understands
from prune_toolkit import (
    DataCollector,
    MetricsCalculator,
    WeightDataCollector,
)
from prune_toolkit.basic import Options
from prune_toolkit.compat import ONE_SHOT
from prune_toolkit.oneshot import ChannelPruner, ConfigList, OneShotPruner

__all__ = ["RandomMetricsCalculator", "RandomPruner", "RandomWeightPruner"]


class RandomMetricsCalculator(MetricsCalculator):
    """Random scores.

    Args:
        dim: The axes of the data that the scores keep, or None for all.
        generator: Where the numbers come from; torch's own unless given.
    """

    def __init__(self, dim: int | None = None, generator: torch.Generator | None = None) -> None:
        super().__init__(dim)
        self.generator = generator

    def calculate_metrics(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return random numbers, the same in all processes of a distributed run."""
        return {name: self._drawn(tensor) for name, tensor in data.items()}

    def _drawn(self, tensor: Tensor) -> Tensor:
        shape = [n for axis, n in enumerate(tensor.shape) if self.dim is None or axis in self.dim]
        device = "cpu" if self.generator is None else self.generator.device
        drawn = torch.rand(shape, generator=self.generator, device=device).to(tensor.device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(drawn, src=0)
        return drawn


class RandomPruner(ChannelPruner):
    """Prunes output channels at random.

    `score[i] ~ U(0, 1)`, for each output channel i.

    Mittal et al., Recovering from Random Pruning: On the Plasticity of Deep Convolutional Neural
    Networks, https://arxiv.org/abs/1801.10447

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"normal"`, `"global"` or `"dependency_aware"`.
        dummy_input: What the model is traced with in the mode `"dependency_aware"`.
        generator: Where the numbers come from; torch's own, which `torch.manual_seed` seeds,
            unless given.
        **options: `reconstruct=`, `calibrate=` and what else `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import RandomPruner
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> rules = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
        >>> pruner = RandomPruner(model, rules, generator=torch.Generator().manual_seed(1))
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum())
        4
    """

    @understands(ONE_SHOT)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "normal",
        dummy_input: Any = None,
        *,
        generator: torch.Generator | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.generator = generator
        super().__init__(model, config_list, mode, dummy_input, **options)

    def collector(self) -> DataCollector:
        """Gather the weights, for their shapes."""
        return WeightDataCollector(self, channels=True)

    def calculator(self) -> MetricsCalculator:
        """Draw a score for each output channel."""
        return RandomMetricsCalculator(dim=0, generator=self.generator)


class RandomWeightPruner(OneShotPruner):
    """Prunes single weights at random.

    `score ~ U(0, 1)`, for each weight of any module that has a weight.

    Liu et al., The Unreasonable Effectiveness of Random Pruning,
    https://arxiv.org/abs/2202.02643

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"normal"` or `"global"`.
        generator: Where the numbers come from; torch's own, which `torch.manual_seed` seeds,
            unless given.
        **options: `reconstruct=`, `calibrate=` and what else `BasicPruner` takes.

    Example:
        >>> from torch import nn
        >>> from prune_filter import RandomWeightPruner
        >>> model = nn.Sequential(nn.Linear(4, 4))
        >>> pruner = RandomWeightPruner(model, [{"sparsity": 0.75, "op_types": ["Linear"]}])
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["weight"].sum())
        4
    """

    modes: ClassVar[tuple[str, ...]] = ("normal", "global")

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "normal",
        *,
        generator: torch.Generator | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.generator = generator
        super().__init__(model, config_list, mode, **options)

    def collector(self) -> DataCollector:
        """Gather the weights, for their shapes."""
        return WeightDataCollector(self)

    def calculator(self) -> MetricsCalculator:
        """Draw a score for each weight."""
        return RandomMetricsCalculator(generator=self.generator)

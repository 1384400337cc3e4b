"""A criterion: a channel whose weights are all alike tells little more than their average."""

from collections.abc import Mapping

from prune_core import ChannelPruner
from prune_core.tools import DataCollector, MetricsCalculator, WeightDataCollector
from torch import Tensor

__all__ = ["SpreadMetricsCalculator", "SpreadPruner"]


class SpreadMetricsCalculator(MetricsCalculator):
    """Scores an output channel by the standard deviation of its weights."""

    def calculate_metrics(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return one score for each channel; the channels with the smallest are pruned."""
        return {name: weight.flatten(1).std(1, correction=0) for name, weight in data.items()}


class SpreadPruner(ChannelPruner):
    """Prune the output channels whose weights differ least from each other.

    The score of channel i is the standard deviation of its weights.

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"normal"`, `"dependency_aware"` or `"global"`.
        dummy_input: An input of the model, to see what belongs together.

    Example:
        ```python
        model, masks = SpreadPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2d"]}]).compress()
        ```
    """

    def collector(self) -> DataCollector:
        """Gather the weights, a row for each output channel."""
        return WeightDataCollector(self, channels=True)

    def calculator(self) -> MetricsCalculator:
        """Score each row."""
        return SpreadMetricsCalculator()

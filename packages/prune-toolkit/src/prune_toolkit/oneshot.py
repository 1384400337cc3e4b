"""Pruners that look at a model once: three parts, one of them chosen by a mode."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from torch import nn

from prune_core.compat import understands
from prune_core.pruning.pruner import ConfigList
from prune_toolkit.allocate import SparsityAllocator
from prune_toolkit.basic import BasicPruner, Options
from prune_toolkit.collect import DataCollector
from prune_toolkit.compat import ONE_SHOT
from prune_toolkit.modes import allocator_for, chosen_mode
from prune_toolkit.score import MetricsCalculator

__all__ = ["CHANNEL_TYPES", "ChannelPruner", "ConfigList", "OneShotPruner"]

# The modules of whose weight each output channel is one slice, and those with hidden units.
CHANNEL_TYPES = (
    *(f"Conv{n}d" for n in (1, 2, 3)),
    *(f"ConvTranspose{n}d" for n in (1, 2, 3)),
    *("Linear", "Conv1D"),
    *("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"),
)


class OneShotPruner(BasicPruner):
    """Looks at a model once: a collector, a calculator, and the allocator of a mode.

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: One of `modes`.
        dummy_input: An input of the model: masks are closed over what follows a masked channel,
            and the mode `"dependency_aware"` needs it.
        **options: `reconstruct=`, `calibrate=` and what else `BasicPruner` takes.
    """

    granularity: ClassVar[str] = "weights"

    @understands(ONE_SHOT)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "normal",
        dummy_input: Any = None,
        **options: Unpack[Options],
    ) -> None:
        self.mode = chosen_mode(self, mode, self.modes)
        self.dummy_input = dummy_input
        super().__init__(model, config_list, **options)

    def collector(self) -> DataCollector:
        """Return what gathers the data; subclasses say."""
        raise NotImplementedError

    def calculator(self) -> MetricsCalculator:
        """Return what turns data into scores, the smallest for what is pruned first."""
        raise NotImplementedError

    def allocator(self) -> SparsityAllocator:
        """Return what turns scores, one for each weight, into masks."""
        return allocator_for(self, self.mode, channels=False)

    def reset_tools(self) -> None:
        """Set the three parts."""
        self.data_collector = self.collector()
        self.metrics_calculator = self.calculator()
        self.sparsity_allocator = self.allocator()


class ChannelPruner(OneShotPruner):
    """Prunes whole output channels; a subclass says how they are scored.

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"normal"` ranks the channels of each module; `"dependency_aware"` those of modules
            that can only lose the same channels together; `"global"` all of an entry together,
            and with `dummy_input` so that they can really be removed: what belongs together goes
            together, and scores are divided by the mean of their group first.
        dummy_input: An input of the model: masks are closed over what follows a masked channel,
            and the mode `"dependency_aware"` needs it.

    Example:
        ```python
        class SpreadPruner(ChannelPruner):
            def collector(self):
                return WeightDataCollector(self, channels=True)

            def calculator(self):
                return SpreadMetricsCalculator()
        ```
    """

    granularity: ClassVar[str] = "channels"
    modes: ClassVar[tuple[str, ...]] = ("normal", "dependency_aware", "global")
    default_types = CHANNEL_TYPES
    supported_types = CHANNEL_TYPES

    def allocator(self) -> SparsityAllocator:
        """Return what turns scores, one for each output channel, into masks."""
        if self.mode == "global" and self.dummy_input is not None:
            return allocator_for(
                self, "dependency_aware", channels=True, dummy_input=self.dummy_input, across=True
            )
        return allocator_for(self, self.mode, channels=True, dummy_input=self.dummy_input)

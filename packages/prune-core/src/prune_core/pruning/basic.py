"""A pruner in three steps: collect data, score it, allocate masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from torch import Tensor, nn

from prune_core.compressed import Compressed
from prune_core.errors import PruneError
from prune_core.events import emit
from prune_core.pruning.allocate import Masks, SparsityAllocator
from prune_core.pruning.collect import DataCollector
from prune_core.pruning.pruner import Pruner
from prune_core.pruning.score import MetricsCalculator

__all__ = ["BasicPruner"]


class BasicPruner(Pruner):
    """Makes masks from three exchangeable parts.

    A subclass sets `data_collector`, `metrics_calculator` and `sparsity_allocator` in
    `reset_tools()`, which is called whenever the pruner gets a model. One that is given an input of
    the model sets `dummy_input`; then `compress()` closes its masks by itself, unless it masks
    single weights.

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
    """

    data_collector: DataCollector | None = None
    metrics_calculator: MetricsCalculator | None = None
    sparsity_allocator: SparsityAllocator | None = None
    dummy_input: Any = None

    def reset(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]] | str | PathLike[str],
    ) -> None:
        """Start anew with another model or another config."""
        super().reset(model, config_list)
        try:
            self.reset_tools()
        except BaseException:
            self.unwrap()
            raise

    def reset_tools(self) -> None:
        """Set the three parts, or call `reset()` on those that are there already."""
        raise NotImplementedError

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Make masks, put them in force, and return the wrapped model and the masks.

        What is returned unpacks to the two, and can be used as the model.

        Args:
            example_inputs: An input of the model; the `dummy_input` unless given. With either,
                the masks also cover what comes after a masked channel, such as the bias of a
                normalisation, so that the masked model is exactly what speedup makes small.
        """
        metrics = self.score()
        assert self.sparsity_allocator is not None
        masks = self.sparsity_allocator.generate_sparsity(metrics)
        return Compressed(self.bound_model, self.put_in_force(masks, example_inputs))

    def score(self) -> dict[str, Tensor]:
        """Collect data and return the scores, `{module name: tensor}`; no mask changes."""
        collector, calculator = self.data_collector, self.metrics_calculator
        if collector is None or calculator is None or self.sparsity_allocator is None:
            raise PruneError(
                f"{type(self).__name__}.reset_tools() must set data_collector, "
                "metrics_calculator and sparsity_allocator."
            )
        metrics = calculator.calculate_metrics(collector.collect())
        for name in self._wrappers:
            if name not in metrics:
                raise PruneError(
                    f"There are no scores for {name!r}; {type(collector).__name__} and "
                    f"{type(calculator).__name__} must return a tensor for each wrapped module."
                )
        return metrics

    def put_in_force(self, masks: Masks, example_inputs: Any = None) -> Masks:
        """Put masks that were just made in force, tell listeners, and return what is in force.

        Args:
            masks: The masks.
            example_inputs: An input of the model, to close the masks over what follows; the
                `dummy_input` unless given.
        """
        self.load_masks(masks)
        if not self.is_wrapped:
            self.wrap()
        coupling = None
        if example_inputs is None and self.granularity != "weights":
            example_inputs = self.dummy_input
            coupling = getattr(self.sparsity_allocator, "coupling", None)
        if example_inputs is not None:
            masks = self.close_masks(example_inputs, coupling)
        emit("prune_masks_made", pruner=self, masks=masks)
        return masks

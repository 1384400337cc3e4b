"""A pruner put together from parts by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from prune_core.pruning.pruner import ConfigList
from prune_toolkit.basic import BasicPruner, MoreOptions
from prune_toolkit.parts import check_used, make_part

__all__ = ["ComposedPruner"]


class ComposedPruner(BasicPruner):
    """Puts a pruner together from registered parts: what is collected, scored and compared.

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        collector: The name of a registered collector, or a class.
        metric: The name of a registered metric, or a class.
        allocator: The name of a registered allocator, or a class.
        calibrate: Takes the model and runs it on some batches, for collectors that look at data.
        batches: After how many batches to stop, or None.
        **more: `reconstruct=` and what else `BasicPruner` takes; everything else goes to those
            parts that understand it, such as `p=2` for the metric `norm`.

    Example:
        >>> from torch import nn
        >>> from prune_core import ComposedPruner
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> pruner = ComposedPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_types": ["Linear"]}],
        ...     collector="weight",
        ...     metric="norm",
        ...     allocator="row",
        ... )
        >>> model, masks = pruner.compress()
        >>> masks["0"]["weight"].sum(1).tolist()
        [2, 2, 2, 2, 2, 2, 2, 2]
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        collector: Any = "weight",
        metric: Any = "straight",
        allocator: Any = "normal",
        *,
        calibrate: Any = None,
        batches: int | None = None,
        **more: Any,
    ) -> None:
        self._parts = {"collector": collector, "metric": metric, "allocator": allocator}
        options = {name: more.pop(name) for name in MoreOptions.__annotations__ if name in more}
        check_used(self._parts, more)
        self._told: Mapping[str, Any] = more
        super().__init__(model, config_list, calibrate=calibrate, batches=batches, **options)

    def reset_tools(self) -> None:
        """Make the three parts."""
        calibrate, batches = self._calibration
        known = dict(self._told)
        if calibrate is not None:
            known |= {"calibrate": calibrate, "batches": batches}
        made = {kind: make_part(kind, part, self, known) for kind, part in self._parts.items()}
        self.data_collector = made["collector"]
        self.metrics_calculator = made["metric"]
        self.sparsity_allocator = made["allocator"]

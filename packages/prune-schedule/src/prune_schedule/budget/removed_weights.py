"""A budget of the weights that go when masked channels are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core import Pruner
from prune_schedule.budget.model import ModelBudget
from prune_speedup.engine.plan import Plan
from prune_speedup.search.planned import weights_left

__all__ = ["RemovedWeights"]


class RemovedWeights(ModelBudget):
    """Each entry of a `config_list` names the ratio that its layers lose together.

    A layer also loses the weights that took the channels which another one lost, so less has to
    be masked than is to go.

    Args:
        pruner: The pruner that masks the model.
        entries: For each entry its layers, and that ratio.
        example_inputs: An input of the model: a tensor, a tuple or a dict.
        caps: The most that each layer may lose.
    """

    def __init__(
        self,
        pruner: Pruner,
        entries: Sequence[tuple[list[str], float]],
        example_inputs: Any,
        caps: Mapping[str, float],
    ) -> None:
        self._entries = {f"entry {place}": names for place, (names, _) in enumerate(entries)}
        super().__init__(pruner, {"parameters": 0.5}, example_inputs, caps)
        self.target = {f"entry {place}": 1.0 - total for place, (_, total) in enumerate(entries)}

    def counted(self, plan: Plan) -> dict[str, float]:
        """Return the ratio of the weights of each entry that a plan leaves."""
        graph, wrappers = plan.labelling.graph, self._pruner.get_modules_wrapper()
        values = {name: value for value, names in graph.tensors.items() for name in names}
        weights = {
            kind: [values[f"{name}.{wrappers[name].target}"] for name in names]
            for kind, names in self._entries.items()
        }
        return weights_left(plan, weights)

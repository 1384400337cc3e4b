"""What a model costs before anything goes, so that it can be said of smaller ones what is left."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

from torch import nn

from prune_core.masking import bare
from prune_speedup.budget.costs import Costs, Workload, workload_of
from prune_speedup.budget.target import relative_latency
from prune_speedup.torch.cost import flops_of
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import has_rule

__all__ = ["Whole"]


class Whole:
    """The parameters, FLOPs and other costs of a model, to compare smaller ones with.

    A plan says what is left of the model that it was made for. This also compares models of which
    one was made from the other in several steps, or by other means than by removing channels.

    Args:
        model: The model before anything goes; it has to stay as it is while latencies are compared.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        kinds: What is asked for, of `parameters`, `flops`, `latency` and registered costs.

    Example:
        >>> import torch
        >>> whole = Whole(nn.Linear(4, 8), torch.zeros(1, 4), ["flops"])
        >>> whole.left(nn.Linear(4, 2))
        {'flops': 0.25}
    """

    def __init__(self, model: nn.Module, example_inputs: Any, kinds: Iterable[str]) -> None:
        self._model, self._inputs, self._kinds = model, example_inputs, list(kinds)
        counted, workload = self._counted(model)
        self._dense = counted
        self._costs = Costs(self._kinds, workload)

    def left(self, small: nn.Module) -> dict[str, float]:
        """Return the share of each kind that a smaller model has or takes."""
        counted, workload = self._counted(small)
        shares = {kind: count / max(1, self._dense[kind]) for kind, count in counted.items()}
        shares |= self._costs.left(workload)
        if "latency" in self._kinds:
            shares["latency"] = relative_latency(small, self._model, self._inputs)
        return {kind: shares[kind] for kind in self._kinds}

    def _counted(self, model: nn.Module) -> tuple[dict[str, int], Workload]:
        with bare(model) as plain:
            graph = trace(plain, self._inputs, known=has_rule)
        workload = workload_of(graph)
        parameters = sum(prod(shape) for shape in workload.parameters.values())
        return {"parameters": parameters, "flops": flops_of(graph)}, workload

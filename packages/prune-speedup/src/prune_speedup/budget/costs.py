"""Costs that plugins register, as further kinds of budgets: memory, energy, a device's latencies.

A cost is a function of a `Workload`: what one forward of a model reads and calls, as shapes. No
model is run to ask for it, so a budget can ask many times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from prune_core.errors import ConfigError, PluginError, shown
from prune_core.registry import get_entry, names
from prune_speedup.engine.graph import Call, Graph, Ref, replace_refs, text_of
from prune_speedup.engine.plan import Plan

__all__ = [
    "Cost",
    "Costs",
    "Operation",
    "Shape",
    "Workload",
    "is_registered",
    "workload_of",
    "workload_of_plan",
]

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model holds and does.

    Attributes:
        parameters: Values in the parameters that the forward reads.
        flops: Floating-point operations of one forward, two per multiply-add, as
            `torch.utils.flop_counter` counts them: those of products and convolutions.
    """

    parameters: int
    flops: int


@dataclass(frozen=True, slots=True)
class Operation:
    """A call of an operator, with shapes in the place of tensors.

    Attributes:
        name: The operator, such as `"aten.convolution.default"` or `"aten.linear.default"`.
        layer: The module in which it is called; `""` is the model itself.
        args: The positional arguments, with the shape of each tensor in its place.
        kwargs: The same for keyword arguments.
        inputs: The shapes of the tensors that it reads, in order.
        outputs: The shapes of the tensors that it makes.
    """

    name: str
    layer: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    positions: Mapping[str, tuple[int, Any]] = field(default_factory=dict, repr=False)

    def argument(self, name: str) -> Any:
        """Return an argument by its name in the operator's schema, or its default, or None.

        Args:
            name: The name of the argument.
        """
        if name in self.kwargs:
            return self.kwargs[name]
        position, default = self.positions.get(name, (len(self.args), None))
        return self.args[position] if position < len(self.args) else default


@dataclass(frozen=True, slots=True)
class Workload:
    """What one forward of the example reads and calls.

    Attributes:
        parameters: The shape of each parameter that the forward reads, by its name.
        operations: The calls, in order.
    """

    parameters: Mapping[str, Shape]
    operations: tuple[Operation, ...]


def workload_of(graph: Graph) -> Workload:
    """Return the workload of a recorded forward.

    Args:
        graph: A recorded forward.
    """
    return _workload(graph, lambda value: tuple(graph.metas[value].shape))


def workload_of_plan(plan: Plan) -> Workload:
    """Return the workload that will be left once a plan has been carried out.

    Args:
        plan: What will be cut where.
    """
    return _workload(plan.labelling.graph, plan.shape)


def _workload(graph: Graph, shape_of: Callable[[int], Shape]) -> Workload:
    parameters = {graph.tensors[value][0]: shape_of(value) for value in sorted(graph.parameters)}
    calls = graph.calls[: graph.first]
    return Workload(parameters, tuple(_operation(call, shape_of) for call in calls))


def _operation(call: Call, shape_of: Callable[[int], Shape]) -> Operation:
    def shape(ref: Ref) -> Shape:
        return shape_of(ref.index)

    return Operation(
        text_of(call.target),
        call.module,
        replace_refs(call.args, shape),
        replace_refs(call.kwargs, shape),
        tuple(shape_of(value) for value in call.inputs()),
        tuple(shape_of(value) for value in call.outputs if value is not None),
        call.positions,
    )


def is_registered(kind: str) -> bool:
    """Whether a plugin registers a cost of this name, bare or as `distribution:name`.

    Args:
        kind: The name of a cost.
    """
    return kind.rpartition(":")[2] in names("cost")


class Costs:
    """Registered costs of a model, in relation to what the dense model costs.

    Args:
        kinds: The names of costs; those that are not registered are left out.
        dense: The workload of the dense model.

    Raises:
        ConfigError: When the dense model costs nothing of a kind.
    """

    def __init__(self, kinds: Iterable[str], dense: Workload) -> None:
        known = [kind for kind in kinds if is_registered(kind)]
        self._functions = {kind: get_entry("cost", kind).load() for kind in known}
        self._dense = self._costs(dense)
        for kind, cost in self._dense.items():
            if not cost:
                raise ConfigError(
                    f"target has {kind!r}, and the dense model costs nothing of it; there is "
                    "nothing to reduce."
                )

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._functions)

    def left(self, workload: Workload) -> dict[str, float]:
        """Return what a workload leaves of each kind, as a ratio.

        Args:
            workload: What is left of a forward.
        """
        costs = self._costs(workload)
        return {kind: cost / self._dense[kind] for kind, cost in costs.items()}

    def _costs(self, workload: Workload) -> dict[str, float]:
        return {kind: _asked(kind, cost, workload) for kind, cost in self._functions.items()}


def _asked(kind: str, cost: Callable[[Workload], Any], workload: Workload) -> float:
    value = cost(workload)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and isfinite(value) and value >= 0):
        raise PluginError(
            f"The cost {kind!r} returned {shown(value)}; it must be a number of at least 0."
        )
    return float(value)

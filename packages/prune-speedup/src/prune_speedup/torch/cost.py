"""What a plan would cost to run, without running it.

The graph knows every call of a forward and the plan every shape after the removal, and the
formulas that torch counts with want nothing but shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from prune_speedup.budget.costs import Cost
from prune_speedup.engine.graph import Call, Graph, Ref, replace_refs
from prune_speedup.engine.plan import Plan

__all__ = ["Cost", "cost_of", "flops_by_module", "flops_of", "flops_of_call", "flops_of_calls"]

aten = torch.ops.aten


def cost_of(plan: Plan) -> Cost:
    """Count what is left after a plan; where a shape cannot be told, what was there before."""
    graph = plan.labelling.graph
    return Cost(
        parameters=sum(prod(plan.shape(value)) for value in graph.parameters),
        flops=sum(_flops(call, plan.shape, graph) for call in graph.calls[: graph.first]),
    )


def flops_of(graph: Graph) -> int:
    """Count what a recorded forward did."""
    return flops_of_calls(graph, range(graph.first))


def flops_of_calls(graph: Graph, positions: Iterable[int]) -> int:
    """Count what some calls of a recorded forward did."""
    calls = (graph.calls[position] for position in positions)
    return sum(_flops(call, lambda value: graph.metas[value].shape, graph) for call in calls)


def flops_by_module(plan: Plan) -> tuple[dict[str, int], dict[str, int]]:
    """Count what each module itself does, by its name: before a plan, and after it."""
    graph = plan.labelling.graph
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    for call in graph.calls[: graph.first]:
        if _formula(call) is None:
            continue
        old = _flops(call, lambda value: graph.metas[value].shape, graph)
        before[call.module] = before.get(call.module, 0) + old
        after[call.module] = after.get(call.module, 0) + _flops(call, plan.shape, graph)
    return before, after


def _flops(call: Call, shape_of: Callable[[int], tuple[int, ...]], graph: Graph) -> int:
    formula = _formula(call)
    if formula is None:
        return 0
    try:
        return _counted(formula, call, shape_of)
    except AssertionError:
        # A tensor made in the forward, such as the first state of a recurrent layer, follows the
        # sizes of others; a plan does not know it.
        return _counted(formula, call, lambda value: graph.metas[value].shape)


def _counted(
    formula: Callable[..., Any], call: Call, shape_of: Callable[[int], tuple[int, ...]]
) -> int:
    def shape(ref: Ref) -> tuple[int, ...]:
        return shape_of(ref.index)

    made = call.outputs[0]
    out = None if made is None else shape_of(made)
    return _by(formula, replace_refs(call.args, shape), replace_refs(call.kwargs, shape), out)


def flops_of_call(target: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Count what a call does that is being made."""
    formula = _formula_of(target)
    if formula is None:
        return 0
    made = result[0] if isinstance(result, list | tuple) else result
    return _by(formula, _shapes(args), _shapes(kwargs), _shapes(made))


def _shapes(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return tuple(tree.shape)
    if isinstance(tree, list | tuple):
        return type(tree)(map(_shapes, tree))
    if isinstance(tree, dict):
        return {name: _shapes(item) for name, item in tree.items()}
    return tree


def _by(formula: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> int:
    flops: int
    if (bare := getattr(formula, "__wrapped__", None)) is not None:
        flops = bare(*args, out_shape=out, **kwargs)  # the wrapper looks for tensors to ask
    else:
        flops = formula(*args, out_val=out, **kwargs)
    return flops


def _formula(call: Call) -> Callable[..., Any] | None:
    return _formula_of(call.target)


def _formula_of(target: Any) -> Callable[..., Any] | None:
    packet = getattr(target, "overloadpacket", None)
    formula: Callable[..., Any] | None = flop_registry.get(packet)
    return formula or _MISSING.get(str(packet))


def _linear(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, out_val: Any) -> int:
    return 2 * prod(x) * weight[0]


def _grouped(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Each row meets the matrix of one expert."""
    return 2 * prod(x) * weight[-1]


# What torch has no formula for, or one under another name.
_MISSING: dict[str, Callable[..., Any]] = {
    "aten.linear": _linear,
    "aten._grouped_mm": _grouped,
    "aten._scaled_dot_product_flash_attention_for_cpu": flop_registry[
        aten._scaled_dot_product_flash_attention
    ],
}

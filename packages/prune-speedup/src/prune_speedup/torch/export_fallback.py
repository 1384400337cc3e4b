"""The graph that `torch.export` makes of a model, for forwards that cannot become smaller.

In a graph there is no Python left that could ask for a size, and every number that an operator is
given stands in its place, where it can be replaced for good.
"""

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from prune_core.errors import SpeedupError
from prune_speedup.torch.proof.run import other_batch
from prune_speedup.torch.record.call_sites import SIZED, Number, short_name
from prune_speedup.torch.record.inputs import arguments, tensors_in
from prune_speedup.torch.record.isolation import evaluating
from prune_speedup.torch.resize.corrections import corrections_of

__all__ = ["GRAPH", "bake", "exported"]

GRAPH = "_prune_graph"


def exported(model: nn.Module, example_inputs: Any) -> fx.GraphModule:
    """Return a graph module that computes what a copy of the model does in eval mode.

    Its tensors go by the model's names, ties included. The first axis of its inputs may have any
    length where the model allows that.

    Raises:
        SpeedupError: `torch.export` refuses the model.
    """
    model = copy.deepcopy(model)
    _, other = other_batch(example_inputs)
    failure: Exception | None = None
    # An axis of length one would be taken to be always one, so the other batch is tried first.
    for inputs in (other, example_inputs) if other is not None else (example_inputs,):
        args, kwargs = arguments(inputs)
        shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
        for _, tensor in tensors_in(inputs):
            if tensor.ndim:
                shapes[tensor] = {0: torch.export.Dim.AUTO}
        try:
            with evaluating(model):
                program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
        except Exception as error:
            failure = error
        else:
            graph = program.module(check_guards=False)
            assert isinstance(graph, fx.GraphModule)
            for refused in ("train", "eval"):  # which only raise, and here mean nothing
                graph.__dict__.pop(refused, None)
            graph.__dict__[GRAPH] = True
            return graph
    raise SpeedupError(
        "The forward does not follow smaller tensors, and torch.export makes no graph of it: "
        f"{type(failure).__name__}: {failure}"
    ) from failure


def bake(graph: fx.GraphModule) -> None:
    """Write corrections into the graph, so that it needs none."""
    corrections = corrections_of(graph)
    if corrections is None:
        return
    counts: Counter[str] = Counter()
    for node in graph.graph.nodes:
        name = short_name(node.target)
        if node.op != "call_function" or name not in SIZED:
            continue
        changes = corrections.sizes.get((name, counts[name]))
        counts[name] += 1
        if changes:
            node.args, node.kwargs = _changed(node, changes)
    corrections.unregister(graph)
    graph.graph.lint()
    graph.recompile()


def _changed(node: fx.Node, changes: Mapping[int, Number]) -> tuple[Any, Any]:
    position = -1

    def walk(arg: Any) -> Any:
        nonlocal position
        if isinstance(arg, list | tuple):
            return type(arg)(walk(item) for item in arg)
        if isinstance(arg, fx.Node) and isinstance(
            arg.meta.get("val"), torch.SymInt | torch.SymFloat
        ):
            position += 1
            return changes.get(position, arg)
        if isinstance(arg, int | float) and not isinstance(arg, bool):
            position += 1
            return changes.get(position, arg)
        return arg

    args = tuple(walk(arg) for arg in node.args)
    return args, {name: walk(arg) for name, arg in node.kwargs.items()}

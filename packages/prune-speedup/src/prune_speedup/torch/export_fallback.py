"""The graph that `torch.export` makes of a model, for forwards that cannot become smaller.

In a graph there is no Python left that could ask for a size, and every number that an operator is
given stands in its place, where it can be replaced for good.
"""

import ast
import copy
import operator
from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import fx, nn

from prune_core.errors import SpeedupError
from prune_speedup.torch.proof.cases import other_batch
from prune_speedup.torch.record.inputs import arguments, tensors_in
from prune_speedup.torch.resize.corrections import Becomes, become
from prune_speedup.torch.resize.rewrite import syntax_of
from prune_speedup.torch.resize.smaller import correct, corrections_of
from prune_toolkit.running.restore import evaluating

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
            graph = _module_of(program)
            assert isinstance(graph, fx.GraphModule)
            for refused in ("train", "eval"):  # which only raise, and here mean nothing
                graph.__dict__.pop(refused, None)
            graph.__dict__[GRAPH] = True
            return graph
    raise SpeedupError(
        "The forward does not follow smaller tensors, and torch.export makes no graph of it: "
        f"{type(failure).__name__}: {failure}"
    ) from failure


def _module_of(program: torch.export.ExportedProgram) -> nn.Module:
    """The module of a program, without checks that its inputs are as long as the example's."""
    checks = "check_guards" in signature(program.module).parameters  # older releases make none
    return program.module(**({"check_guards": False} if checks else {}))


def bake(graph: fx.GraphModule) -> None:
    """Write corrections into the graph, so that it needs none."""
    corrections = corrections_of(graph)
    correct(graph, ())
    if not corrections:
        return
    forward: Any = type(graph).forward
    first, tree = forward.__code__.co_firstlineno, syntax_of(forward)
    nodes = {node.name: node for node in graph.graph.nodes}
    for correction in corrections:
        begin, end, *_ = correction.path[-1].span
        (name,) = {
            target.id
            for statement in ast.walk(tree)
            if isinstance(statement, ast.Assign)
            and statement.lineno <= begin + first
            and end + first <= (statement.end_lineno or 0)
            and correction.path[-1].text == ast.unparse(statement.value)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        nodes[name].args, nodes[name].kwargs = _changed(nodes[name], dict(correction.numbers))
    graph.graph.lint()
    graph.recompile()
    graph.__dict__[GRAPH] = True


def _changed(node: fx.Node, changes: Mapping[int, Becomes]) -> tuple[Any, Any]:
    position = -1

    def walk(arg: Any) -> Any:
        nonlocal position
        if isinstance(arg, list | tuple):
            return type(arg)(walk(item) for item in arg)
        if isinstance(arg, slice):
            return slice(walk(arg.start), walk(arg.stop), walk(arg.step))
        open_size = isinstance(arg, fx.Node) and isinstance(
            arg.meta.get("val"), torch.SymInt | torch.SymFloat
        )
        if not open_size and (not isinstance(arg, int | float) or isinstance(arg, bool)):
            return arg
        position += 1
        if position not in changes:
            return arg
        becomes = changes[position]
        return _scaled(node, arg, becomes) if open_size else become(becomes, arg, node.name)

    args = tuple(walk(arg) for arg in node.args)
    return args, {name: walk(arg) for name, arg in node.kwargs.items()}


def _scaled(node: fx.Node, size: fx.Node, becomes: Becomes) -> Any:
    """A size that stays open, by the ratio of what it was to what it has to be."""
    old, new = becomes.pairs[0]
    if not becomes.scaled:
        return new
    with node.graph.inserting_before(node):
        product = node.graph.call_function(operator.mul, (size, new))
        return node.graph.call_function(operator.floordiv, (product, old))

"""int8 for convolutions and linear layers, by ranges seen on data: torchao's PT2E on CPUs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn

from prune_core.errors import ConfigError, PruneError
from prune_export.programs import open_batch
from prune_quant.batches import call_of, listed, run
from prune_quant.schemes.torchao import quiet, torchao

__all__ = ["IntegerGraph", "quantize_static"]

_X86 = "quantization.pt2e.quantizer.x86_inductor_quantizer"


class IntegerGraph(nn.Module):
    """The graph that "int8_static" makes, as an ordinary module that only computes.

    Attributes:
        program: The graph of torch, which refuses `eval()` and warns when it is copied.
    """

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.program = graph
        self.training = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph."""
        return self.program(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Change nothing: there is nothing to train in it."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> IntegerGraph:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return IntegerGraph(copy.deepcopy(self.program, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise PruneError(
            "A graph of torch cannot be pickled. prune_core.export(model, 'model.pt2', inputs) "
            "writes it, and torch.export.load('model.pt2').module() reads it."
        )


def quantize_static(model: nn.Module, data: Any, exclude: Sequence[str]) -> nn.Module:
    """Return the graph of a model in which integers of 8 bits are multiplied.

    Batch norms are folded into the convolutions before them. What runs it fast is
    `torch.compile(model)`; without it, the graph computes the same in floating point.
    """
    if data is None:
        raise ConfigError(
            "'int8_static' rounds by what it sees: give data=, a few batches of real inputs."
        )
    batches = listed(data)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if device.type != "cpu":
        raise ConfigError(
            f"'int8_static' makes integer kernels for CPUs, and the model is on {device}. Move it "
            "there, model.cpu(), or use 'int8_dynamic'."
        )
    model = model.eval()
    run(model, batches[0])
    x86, convert = torchao(_X86), torchao("quantization.pt2e.quantize_pt2e")
    quantizer = x86.X86InductorQuantizer()
    config = x86.get_default_x86_inductor_quantization_config()
    quantizer.set_global(config)
    for name in exclude:
        quantizer.set_module_name_qconfig(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and torchao, about their own code
        graph = convert.prepare_pt2e(_exported(model, batches[0]), quantizer)
        for batch in batches:
            run(graph, batch)
        graph = convert.convert_pt2e(graph)
    if not any("quantize_per" in str(node.target) for node in graph.graph.nodes):
        raise ConfigError(
            "'int8_static' found no convolution and no linear layer to quantise in this model."
        )
    _drop_unused(graph)
    return IntegerGraph(graph)


def _drop_unused(graph: Any) -> None:
    """Let go of the weights in floating point, which integers have taken the place of."""
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    held = (*graph.named_parameters(remove_duplicate=False), *graph.named_buffers())
    for name, _ in held:
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(graph.get_submodule(owner), leaf)


def _exported(model: nn.Module, batch: Any) -> nn.Module:
    """Return the graph of a model, for any batch size where its forward allows it."""
    args, kwargs = call_of(batch)
    try:
        with quiet("torch.fx.experimental", "torch.export", "torch._dynamo"):
            program = torch.export.export(
                model, args, kwargs, dynamic_shapes=open_batch(model, args, kwargs)
            )
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ConfigError(
            f"torch.export does not take this {type(model).__name__}, which 'int8_static' needs: "
            f"{type(error).__name__}: {said} prune_quant.ObserverQuantizer quantises it without a "
            "graph, and its convert() makes a model of integers."
        ) from error
    graph = program.module()
    _name_calls(graph, model)
    return graph


def _name_calls(graph: Any, model: nn.Module) -> None:
    """Give each call of an activation that is called several times a name of its own.

    A ResNet calls one ReLU twice in a block. Torchao takes the nodes of one module for one call,
    and does not know what to make of a call with two outputs.
    """
    leaves = {
        name
        for name, module in model.named_modules()
        if name and not [*module.parameters(recurse=False)] and not [*module.children()]
    }
    calls: dict[str, list[set[Any]]] = {}
    for node in graph.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        name = [*stack.values()][-1][0] if stack and node.op == "call_function" else ""
        if name in leaves:
            parts = calls.setdefault(name, [])
            joined = [part for part in parts if part & {*node.all_input_nodes}]
            parts[:] = [part for part in parts if part not in joined]
            parts.append({node}.union(*joined))
    for name, parts in calls.items():
        for number, part in enumerate(parts[1:], 1):
            for node in part:
                stack = dict(node.meta["nn_module_stack"])
                key, (_, kind) = [*stack.items()][-1]
                node.meta["nn_module_stack"] = {**stack, key: (f"{name}__call{number}", kind)}

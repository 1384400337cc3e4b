"""int8 for convolutions and linear layers, by ranges seen on data: torchao's PT2E on CPUs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError
from prune_core.files import replacing
from prune_quant.batches import call_of, listed, run
from prune_quant.torchao import torchao

__all__ = ["export_pt2", "quantize_static"]

_X86 = "quantization.pt2e.quantizer.x86_inductor_quantizer"


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
    pt2e, x86 = torchao("quantization.pt2e"), torchao(_X86)
    convert = torchao("quantization.pt2e.quantize_pt2e")
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
        pt2e.allow_exported_model_train_eval(graph)
    if not any("quantize_per" in str(node.target) for node in graph.graph.nodes):
        raise ConfigError(
            "'int8_static' found no convolution and no linear layer to quantise in this model."
        )
    made: nn.Module = graph.eval()
    return made


def _exported(model: nn.Module, batch: Any) -> nn.Module:
    """Return the graph of a model, for any batch size where its forward allows it."""
    args, kwargs = call_of(batch)
    shapes = _shapes(args, kwargs)
    try:
        program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ConfigError(
            f"torch.export does not take this {type(model).__name__}, which 'int8_static' needs: "
            f"{type(error).__name__}: {said} prune_quant.ObserverQuantizer quantises it without a "
            "graph, and its convert() makes a model of integers."
        ) from error
    return program.module()


def export_pt2(model: nn.Module, path: Path, example_inputs: Any = None) -> None:
    """Write the graph of a model, as `torch.export.load(path).module()` reads it."""
    if example_inputs is None:
        raise ConfigError("A graph is made by tracing the model: give example_inputs.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args, kwargs = call_of(example_inputs)
        program = torch.export.export(
            model, args, kwargs, dynamic_shapes=_shapes(args, kwargs), strict=False
        )
        with replacing(path) as file:
            torch.export.save(program, file)


def _shapes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Leave the first axis of each input open, but for batches of one, which say nothing of it."""
    free = {0: torch.export.Dim.AUTO}

    def shape(value: Any) -> Any:
        return free if isinstance(value, Tensor) and value.ndim and len(value) > 1 else None

    return {n: shape(v) for n, v in kwargs.items()} if kwargs else tuple(map(shape, args))

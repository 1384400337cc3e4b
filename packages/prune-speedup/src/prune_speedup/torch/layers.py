"""What became of each layer: what a picture of the model before and after is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from prune_core.masking.axes import output_axis, weight_name
from prune_core.traversal import named_modules, named_parameters

__all__ = ["LayerSize", "layer_sizes"]

Pair = tuple[int, int]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class LayerSize:
    """A layer with parameters of its own, whether or not it became smaller.

    Attributes:
        name: Its dotted name.
        type: Its class.
        parameters: Values in its parameters, before and after. Those that an earlier layer has too
            are counted there.
        flops: Floating-point operations for the example, before and after; None if not counted.
        inputs: Input channels before and after; None for a layer without a matrix, such as a norm.
        outputs: Output channels before and after.
        removed: The output channels that went, by the numbers that they had.
    """

    name: str
    type: str
    parameters: Pair
    flops: Pair | None
    inputs: Pair | None
    outputs: Pair | None
    removed: tuple[int, ...] = ()


def layer_sizes(
    model: nn.Module,
    before: Shapes,
    slices: Mapping[str, Mapping[int, torch.Tensor]],
    attributes: Mapping[str, Mapping[str, Any]],
    flops: tuple[Mapping[str, int], Mapping[str, int]] | None = None,
) -> list[LayerSize]:
    """List the layers of a small model.

    Args:
        model: The small model.
        before: The shapes that its parameters had, by name.
        slices: The indices that stayed of each tensor that became smaller.
        attributes: The plain attributes that each module had.
        flops: What each module spent, before and after.
    """
    first_name = {id(p): name for name, p in named_parameters(model).items()}
    counted: set[str] = set()
    layers = []
    for name, module in named_modules(model):
        own = {
            key: (parameter, first_name[id(parameter)])
            for key, parameter in module._parameters.items()
            if parameter is not None
        }
        if not own:
            continue
        new = {known: p for p, known in own.values() if known not in counted}
        counted.update(new)
        # A bias that a layer has gained was not there before.
        parameters = (
            sum(prod(before[known]) for known in new if known in before),
            sum(parameter.numel() for parameter in new.values()),
        )
        now = getattr(module, "groups", 1)
        groups = (
            (attributes.get(name, {}).get("groups", now), now) if isinstance(now, int) else (1, 1)
        )
        inputs, outputs, removed = _channels(module, own, before, slices, groups)
        spent = None if flops is None else (flops[0].get(name, 0), flops[1].get(name, 0))
        layers.append(
            LayerSize(name, type(module).__name__, parameters, spent, inputs, outputs, removed)
        )
    return layers


def _channels(
    module: nn.Module,
    own: Mapping[str, tuple[nn.Parameter, str]],
    before: Shapes,
    slices: Mapping[str, Mapping[int, torch.Tensor]],
    groups: Pair,
) -> tuple[Pair | None, Pair | None, tuple[int, ...]]:
    """Input and output channels of a layer before and after, and the output channels that went."""
    key = weight_name(module)
    if key is None or key not in own or own[key][1] not in before:
        return None, None, ()
    parameter, name = own[key]
    old, new = before[name], tuple(parameter.shape)
    # The rows of a table are its words; what it puts out are its columns.
    table = isinstance(module, nn.Embedding | nn.EmbeddingBag)
    axis = 1 if table else output_axis(module)
    if len(old) <= axis or len(old) != len(new):
        return None, None, ()
    kept = slices.get(name, {}).get(axis)
    removed = np.ones(old[axis], dtype=np.bool_)
    removed[... if kept is None else kept.numpy()] = False
    inputs = None
    if len(old) > 1 and not table:
        inputs = old[1 - axis], new[1 - axis]
        if axis == 0:
            # Of a grouped layer the weight of each group has a share of the inputs.
            inputs = inputs[0] * groups[0], inputs[1] * groups[1]
    return inputs, (old[axis], new[axis]), tuple(np.flatnonzero(removed).tolist())

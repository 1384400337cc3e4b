"""Constants that masked channels leave behind, moved into the biases of what reads them.

A layer that sums over a channel which holds the same number for every input and everywhere adds a
number of its own: `weight @ constant`. With that in its bias it need not read the channel, which
can then go. Under a padding of zeros the channel is not the same everywhere, and the outermost
results change.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prune_speedup.engine.graph import Call, Ref
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Flags, make_plan
from prune_speedup.engine.propagate import Labelling, propagate
from prune_speedup.engine.removable import masked_units
from prune_speedup.engine.values import CONSTANT
from prune_speedup.torch.masks import zeros_of
from prune_speedup.torch.proof.masked_reference import Masked, Meaning
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.tensors import put

__all__ = ["fold"]

_INPUT = {"convolution": 0, "addmm": 1, "mm": 0, "linear": 0}
"""Which argument of an operator is what a layer reads."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Reader(NamedTuple):
    """A layer that sums over channels, and what it reads.

    Attributes:
        name: Its name.
        layer: A linear layer or a convolution with a weight of its own.
        value: What it reads.
        axis: The channels' axis.
    """

    name: str
    layer: nn.Linear | nn.modules.conv._ConvNd
    value: int
    axis: int


def fold(model: nn.Module, example_inputs: Any, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put constants into biases, and return masks that also cover who read them.

    Args:
        model: What is masked; biases change, and a layer that has none gets one.
        example_inputs: What it is run with.
        masks: `{tensor name: bool mask}`.
    """
    graph = trace(model, example_inputs, known=has_rule)
    labelling = propagate(graph)
    readers = _readers(model, labelling)
    units = _constant_units(labelling, zeros_of(model, graph, masks), readers)
    if not units.any():
        return dict(masks)
    seen = _read_values(model, example_inputs, labelling, masks, readers)
    if not seen:
        return dict(masks)
    columns = {
        position: labelling.labels.find(_labels(labelling, reader))
        for position, reader in readers.items()
    }
    for position, reader in readers.items():
        value = seen[position].movedim(reader.axis, 0).flatten(1)
        uneven = (value != value[:, :1]).any(1).cpu().numpy()
        units[columns[position][uneven]] = False
    folded = dict(masks)
    for position, reader in readers.items():
        gone = torch.from_numpy(units[columns[position]])
        if gone.any():
            constants = seen[position].movedim(reader.axis, 0).flatten(1)[:, 0]
            _move(reader, constants, gone, folded)
    return folded


def _readers(model: nn.Module, labelling: Labelling) -> dict[int, _Reader]:
    """Layers that run once and share their weight with nobody, by the position of their call."""
    graph, modules = labelling.graph, dict(model.named_modules())
    own = {names[0] for names in graph.tensors.values() if len(names) == 1}
    readers: dict[int, _Reader] = {}
    for position, call in enumerate(graph.calls[: graph.trained]):
        layer = modules.get(call.module)
        if call.name not in _INPUT or f"{call.module}.weight" not in own:
            continue
        if isinstance(layer, _LAYERS) and _as_torch_does(layer) and not _transposed(call):
            ref = call.args[_INPUT[call.name]]
            assert isinstance(ref, Ref)
            axis = 1 if call.name == "convolution" else len(graph.metas[ref.index].shape) - 1
            readers[position] = _Reader(call.module, layer, ref.index, axis)
    runs = Counter(reader.name for reader in readers.values())
    return {
        position: reader
        for position, reader in readers.items()
        if runs[reader.name] == 1 and len(_labels(labelling, reader))
    }


def _as_torch_does(layer: nn.Module) -> bool:
    """Whether a layer computes with its weight and bias as they are, and not with others."""
    kind = next(base for base in _LAYERS if isinstance(layer, base))
    return "forward" not in vars(layer) and all(
        getattr(type(layer), name, None) is getattr(kind, name, None)
        for name in ("forward", "_conv_forward")
    )


def _transposed(call: Call) -> bool:
    return call.name == "convolution" and bool(call.args[6])


def _labels(labelling: Labelling, reader: _Reader) -> Array:
    """The labels of what a layer reads, where they differ along its channels alone."""
    group = labelling.flow.values[reader.value].group_at(reader.axis)
    if group is None or group.axes != (reader.axis,):
        return np.empty(0, dtype=np.int64)
    return group.compact().ravel()


def _constant_units(labelling: Labelling, zeros: Any, readers: Mapping[int, _Reader]) -> Flags:
    """Masked units of which nothing but constants is left, and nobody but these layers reads it."""
    labels = labelling.labels
    roots = labels.find(np.arange(len(labels)))
    constant, other = np.zeros_like(roots, dtype=np.bool_), np.zeros_like(roots, dtype=np.bool_)
    for position, state, found in (
        propagate(labelling.graph, zeros, labelling.labels).flow.leaks or ()
    ):
        foldable = state == CONSTANT and position in readers
        (constant if foldable else other)[roots[found]] = True
    candidates, closed = masked_units(labelling, zeros)
    for _, found in labelling.flow.live_norms:
        over = roots[found]
        other[over[~closed[over]]] = True
    units: Flags = constant & ~other & candidates
    return units


class _Reading(Masked):  # type: ignore[no-untyped-call]
    """A masked run that keeps what some of the calls are given."""

    def __init__(self, *args: Any, readers: Mapping[int, _Reader]) -> None:
        super().__init__(*args)
        self.seen: dict[int, Tensor] = {}
        self._readers = readers

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        position = len(self.graph.calls)
        if position in self._readers:
            name = self._plan.labelling.graph.calls[position].name
            self.seen[position] = args[_INPUT[name]].clone()
        return super().execute(func, args, kwargs)


def _read_values(
    model: nn.Module,
    example_inputs: Any,
    labelling: Labelling,
    masks: Mapping[str, Tensor],
    readers: Mapping[int, _Reader],
) -> dict[int, Tensor]:
    reading = _Reading(
        model, make_plan(labelling, ()), Meaning(masks, removed=False), readers=readers
    )
    reading.run(example_inputs)
    # A forward that writes to its own weights makes other calls where those are shown masked.
    before, now = ([call.target for call in g.calls] for g in (labelling.graph, reading.graph))
    return reading.seen if before[: len(now)] == now else {}


def _move(reader: _Reader, constants: Tensor, gone: Tensor, masks: dict[str, Tensor]) -> None:
    """Add to a bias what constant channels make of the weight, and mask the weight there."""
    layer = reader.layer
    name, bias_name = f"{reader.name}.weight", f"{reader.name}.bias"
    keep = masks.get(name, torch.ones(layer.weight.shape, dtype=torch.bool, device="cpu"))
    weight = layer.weight.detach().double() * keep.to(layer.weight.device)
    groups = getattr(layer, "groups", 1)
    # One row per output and one column per channel that it reads, of its own group.
    summed = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    read = (constants.double() * gone.to(constants.device)).view(groups, -1)
    read = read.repeat_interleave(summed.shape[0] // groups, 0)
    added = (summed * read).sum(1)
    cut = gone.view(groups, -1).repeat_interleave(summed.shape[0] // groups, 0)
    masks[name] = keep & ~cut.view(*cut.shape, *[1] * (keep.ndim - 2))
    if layer.bias is None:
        bias = nn.Parameter(added.to(layer.weight.dtype), layer.weight.requires_grad)
        layer.register_parameter("bias", bias)
        return
    old = layer.bias.detach().double()
    if bias_name in masks:
        old = old * masks[bias_name].to(old.device)
        masks[bias_name] = masks[bias_name] | (added != 0).cpu()
    put(layer.bias, (old + added).to(layer.bias.dtype), layer.bias.grad)

"""Constants that masked channels leave behind, moved into the biases of what reads them.

A layer that sums over a channel which holds the same number for every input and everywhere adds a
number of its own: `weight @ constant`. With that in its bias it need not read the channel, which
can then go. Under a padding of zeros the channel is not the same everywhere, and the outermost
results change.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prune_speedup.engine.graph import ALIAS_WRITE, Call, Ref
from prune_speedup.engine.labels import Array
from prune_speedup.engine.mask_effects import Standing
from prune_speedup.engine.plan import Flags, make_plan
from prune_speedup.engine.propagate import Labelling
from prune_speedup.engine.values import UNIFORM
from prune_speedup.torch.parts import put
from prune_speedup.torch.proof.cases import other_batch
from prune_speedup.torch.proof.masked_reference import Masked, Meaning

__all__ = ["Fold", "fold"]

_INPUT = {"convolution": 0, "addmm": 1, "mm": 0, "linear": 0}
"""Which argument of an operator is what a layer reads."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

_Layer = nn.Linear | nn.modules.conv._ConvNd


class _Reader(NamedTuple):
    """A layer that sums over channels, and what it reads.

    Attributes:
        name: Its name.
        layer: A linear layer or a convolution with a weight of its own.
        value: What it reads.
        axis: The channels' axis.
    """

    name: str
    layer: _Layer
    value: int
    axis: int


class Fold(NamedTuple):
    """Constants that could be moved into biases.

    Attributes:
        masks: The masks, which also cover the weights that read the constants.
        biases: The layers whose bias would take them, and what it would be then.
    """

    masks: dict[str, Tensor]
    biases: list[tuple[_Layer, Tensor]]

    def apply(self) -> None:
        """Give the layers these biases; one that has none gets one."""
        for layer, bias in self.biases:
            if layer.bias is None:
                added = nn.Parameter(bias, layer.weight.requires_grad)
                layer.register_parameter("bias", added)
            else:
                put(layer.bias, bias, layer.bias.grad)


def fold(
    model: nn.Module,
    example_inputs: Any,
    found: Standing,
    masks: Mapping[str, Tensor],
    *,
    exactly: bool,
) -> Fold | None:
    """Find constants that can be moved into the biases of the layers that read them.

    Args:
        model: What is masked; nothing is changed yet.
        example_inputs: What it is run with.
        found: What its masks leave of its units.
        masks: `{tensor name: bool mask}`.
        exactly: Whether to fold only what changes nothing, whatever the input: a number that is
            the same everywhere and for any size, read by a layer that pads with no zeros.

    Returns:
        What to do, or `None` where there is nothing to fold.
    """
    readers = _readers(model, found.labelling, padding=not exactly)
    units = _foldable(found, readers, exactly=exactly)
    columns = {at: found.roots[_labels(found.labelling, each)] for at, each in readers.items()}
    readers = {at: each for at, each in readers.items() if units[columns[at]].any()}
    if not readers:
        return None
    seen = _read(model, example_inputs, found.labelling, masks, readers)
    again = {}
    if exactly and (other := other_batch(example_inputs)[1]) is not None:
        with suppress(Exception):  # it was made up; a model need not run on it
            again = _read(model, other, found.labelling, masks, readers)
    for position, constants in seen.items():
        varies = ~constants.even
        if position in again:
            varies |= ~again[position].even | ~_alike(constants.numbers, again[position].numbers)
        units[columns[position][varies.cpu().numpy()]] = False
    folded = Fold(dict(masks), [])
    for position, constants in seen.items():
        gone = torch.from_numpy(units[columns[position]])
        if gone.any():
            _move(readers[position], constants.numbers, gone, folded)
    return folded if folded.biases else None


def _foldable(found: Standing, readers: Mapping[int, _Reader], *, exactly: bool) -> Flags:
    """The classes of masked units of which only constants are left, that only these layers read."""
    units: Flags = found.constants & (found.roots == np.arange(len(found.roots)))
    if found.flow is None:
        return units
    for position, _, leaking in found.flow.leaks or ():
        if position not in readers:
            units[found.roots[leaking]] = False
        elif exactly:
            reader = readers[position]
            group = found.flow.values[reader.value].group_at(reader.axis)
            if group is None or group.axes != (reader.axis,):
                units[found.roots[leaking]] = False
            else:
                uneven = group.states().ravel() > UNIFORM
                units[found.roots[group.compact().ravel()[uneven]]] = False
    return units


class _Constants(NamedTuple):
    """What a layer reads, channel by channel.

    Attributes:
        numbers: The first number of each.
        even: Whether the others are the same.
    """

    numbers: Tensor
    even: Tensor


def _alike(left: Tensor, right: Tensor) -> Tensor:
    """Where numbers are equal but for what rounding does."""
    return torch.isclose(left, right, rtol=1e-6, atol=1e-9)


def _readers(model: nn.Module, labelling: Labelling, *, padding: bool) -> dict[int, _Reader]:
    """Layers that run once and share their weight with nobody, by the position of their call.

    With `padding`, also those that pad with zeros.
    """
    graph, modules = labelling.graph, dict(model.named_modules())
    own = {names[0] for names in graph.tensors.values() if len(names) == 1}
    readers: dict[int, _Reader] = {}
    for position, call in enumerate(graph.calls[: graph.first]):
        layer = modules.get(call.module)
        if call.name not in _INPUT or f"{call.module}.weight" not in own:
            continue
        if not padding and _pads(call):
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
    return call.name == "convolution" and bool(call.argument("transposed"))


def _pads(call: Call) -> bool:
    return call.name == "convolution" and any(call.argument("padding"))


def _labels(labelling: Labelling, reader: _Reader) -> Array:
    """The labels of what a layer reads, where they differ along its channels alone."""
    group = labelling.flow.values[reader.value].group_at(reader.axis)
    if group is None or group.axes != (reader.axis,):
        return np.empty(0, dtype=np.int64)
    return group.compact().ravel()


class _Reading(Masked):  # type: ignore[no-untyped-call]
    """A masked run that looks at what some of the calls are given."""

    def __init__(self, *args: Any, readers: Mapping[int, _Reader]) -> None:
        super().__init__(*args)
        self.seen: dict[int, _Constants] = {}
        calls = self._plan.labelling.graph.calls
        self._readers = {id(calls[at]): (at, reader) for at, reader in readers.items()}

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        recorded = self._matched
        if recorded is not None and (found := self._readers.get(id(recorded))) is not None:
            position, reader = found
            channels = args[_INPUT[recorded.name]].movedim(reader.axis, 0).flatten(1)
            even = _alike(channels, channels[:, :1]).all(1)
            self.seen[position] = _Constants(channels[:, 0].clone(), even)
        return super().execute(func, args, kwargs)


def _read(
    model: nn.Module,
    example_inputs: Any,
    labelling: Labelling,
    masks: Mapping[str, Tensor],
    readers: Mapping[int, _Reader],
) -> dict[int, _Constants]:
    graph = labelling.graph
    for call in graph.calls:
        written = graph.tensors.get(call.args[0].index, ()) if call.target is ALIAS_WRITE else ()
        if not masks.keys().isdisjoint(written):
            return {}  # what goes to `weight.data` would go to a product with the mask
    reading = _Reading(
        model, make_plan(labelling, ()), Meaning(masks, removed=False), readers=readers
    )
    reading.run(example_inputs, again=False)
    return reading.seen if reading.in_step else {}


def _move(reader: _Reader, constants: Tensor, gone: Tensor, folded: Fold) -> None:
    """Add to a bias what constant channels make of the weight, and mask the weight there."""
    layer, masks = reader.layer, folded.masks
    name, bias_name = f"{reader.name}.weight", f"{reader.name}.bias"
    keep = masks.get(name, torch.ones(layer.weight.shape, dtype=torch.bool, device="cpu"))
    weight = layer.weight.detach().double() * keep.to(layer.weight.device)
    groups = getattr(layer, "groups", 1)
    # One row per output and one column per channel that it reads, of its own group.
    summed = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    read = (constants.double() * gone.to(constants.device)).view(groups, -1)
    read = read.repeat_interleave(summed.shape[0] // groups, 0)
    bias = (summed * read).sum(1)
    cut = gone.view(groups, -1).repeat_interleave(summed.shape[0] // groups, 0)
    masks[name] = keep & ~cut.view(*cut.shape, *[1] * (keep.ndim - 2))
    if layer.bias is not None:
        old = layer.bias.detach().double()
        if bias_name in masks:
            old = old * masks[bias_name].to(old.device)
            masks[bias_name] = masks[bias_name] | (bias != 0).cpu()
        bias = old + bias
    folded.biases.append((layer, bias.to(layer.weight.dtype)))

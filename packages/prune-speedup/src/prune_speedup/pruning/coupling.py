"""Where the coupled units of a model meet its prunable modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_core.masking import output_axis, weight_name
from prune_core.masking.axes import masked_names
from prune_core.masking.recurrent import gates, is_recurrent, spread, unspread
from prune_core.masking.slices import held_on, in_rows, is_in_rows
from prune_core.traversal import named_modules, named_parameters
from prune_speedup.engine.labels import FIXED, Array, among
from prune_speedup.engine.selection import Producer
from prune_speedup.gc_pause import collecting_later

if TYPE_CHECKING:
    from prune_speedup.engine.mask_effects import Standing
    from prune_speedup.engine.units import UnitGroup, Units

__all__ = ["Closing", "Coupling"]


def _moment_of(tensor: Tensor) -> tuple[Any, ...] | None:
    """Return what tells a tensor's numbers from any others: its rows, or how often it was written.

    Nothing, where torch does not count that, or it has no place of its own.
    """
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    if not plain or tensor.is_inference():
        return None
    rows = tensor.dtype == torch.bool and tensor.is_cpu and tensor.ndim and tensor.numel()
    if rows and is_in_rows(tensor):
        flags: Any = tensor.numpy()
        return tuple(tensor.shape), flags[:, *[0] * (tensor.ndim - 1)].tobytes()
    return tensor.data_ptr(), tensor.stride(), tensor._version


def _as_rows(masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Look once at masks, which are most often made of whole rows."""
    return {
        name: {leaf: in_rows(mask) for leaf, mask in each.items()} for name, each in masks.items()
    }


class Closing(NamedTuple):
    """What masks need besides.

    Attributes:
        masks: Further masks, `{module name: {tensor name: mask}}`.
        removable: The numbers of all units that the speedup removes under both.
    """

    masks: dict[str, dict[str, Tensor]]
    removable: Array


class Coupling:
    """The units of a model, seen from the modules that make channels.

    Args:
        model: A model that is not wrapped; it is run once and left as it was.
        example_inputs: A tensor, a tuple or a dict.
        found: The units of this model, if they are known; then it is not run.
    """

    def __init__(
        self, model: nn.Module, example_inputs: Any = None, found: Units | None = None
    ) -> None:
        from prune_speedup.torch.analysis import remembered_units  # imported when it is used

        self.units: Units = remembered_units(model, example_inputs) if found is None else found
        self._model = model
        self.modules = dict(named_modules(model, every_name=True))
        self.producers = {
            producer.name: producer
            for name, axis in self.units.axes
            if (producer := self._producer(name, axis)) is not None
        }
        self._last: tuple[Any, Any, Closing] | None = None
        every = [int(classes.max(initial=FIXED)) for classes in self.units.axes.values()]
        self._labels = 1 + max(every, default=FIXED)

    def _producer(self, tensor: str, axis: int) -> Producer | None:
        if len(self.units.shapes[tensor]) < 2:
            return None
        path, _, leaf = tensor.rpartition(".")
        module = self.modules.get(path)
        if module is None or leaf != weight_name(module) or axis != output_axis(module):
            return None
        classes = self.units.axes[tensor, axis]
        if is_recurrent(module):  # every gate has a row of each hidden unit
            classes = classes[: len(classes) // gates(module)]
        return Producer(path, leaf, classes)

    def of_group(self, group: UnitGroup) -> list[Producer]:
        """Return the modules that make the channels of a group."""
        names = [tensor.rpartition(".")[0] for tensor, _ in group.axes]
        return [
            self.producers[name]
            for name in dict.fromkeys(names)
            if name in self.producers
            and bool(among(self.producers[name].classes, group.labels).any())
        ]

    def why_fixed(self, name: str) -> str:
        """Return why a module can lose none of its output channels."""
        module = self.modules[name]
        return self.units.why_fixed(f"{name}.{weight_name(module)}", output_axis(module))

    @cached_property
    def normed(self) -> Array:
        """The labels of units over which a layer normalisation runs, and which it keeps.

        Masks reach of each only the channels that its producers make, and factors and terms of
        single channels. What else has a slice of it stays as it is, and the norm with it.
        """
        labelling = self.units.labelling
        if not labelling.flow.live_norms:
            return np.zeros(0, dtype=np.int64)
        roots, _ = labelling.labels.classes()
        over, unmasked = (np.zeros(len(roots), dtype=np.bool_) for _ in range(2))
        for _, labels in labelling.flow.live_norms:
            over[roots[labels]] = True
        for (tensor, axis), classes in self.units.axes.items():
            if not self._reached(tensor, axis):
                unmasked[roots[classes]] = True
        return np.flatnonzero((over & unmasked)[roots])

    def _reached(self, tensor: str, axis: int) -> bool:
        """Whether closed masks cover the slices of a tensor along an axis."""
        path, _, leaf = tensor.rpartition(".")
        module = self.modules.get(path)
        if module is None or leaf not in masked_names(module):
            return False
        makes = path in self.producers and leaf == self.producers[path].tensor
        single = len(self.units.shapes[tensor]) == 1
        return single or (makes and axis == output_axis(module))

    def marked(self, units: Sequence[int] | Array) -> npt.NDArray[np.bool_]:
        """Return for each label of a tensor whether it is one of these units.

        Labels that only results have are among no tensor's, and left out.
        """
        marks, asked = np.zeros(self._labels, dtype=np.bool_), np.asarray(units, dtype=np.int64)
        marks[asked[asked < self._labels]] = True
        return marks

    def masks_of(self, producer: Producer, units: Array) -> dict[str, Tensor]:
        """Return masks of a module's weight and bias that cover its channels of some units."""
        module = self.modules[producer.name]
        keep = torch.from_numpy(~among(producer.classes, units))
        weight = module.get_parameter(producer.tensor)
        if is_recurrent(module):
            return spread(module, keep.to(weight.device))
        shape = [1] * weight.ndim
        shape[output_axis(module)] = -1
        masks = {producer.tensor: keep.reshape(shape).expand(weight.shape)}
        for name in masked_names(module):
            if name != producer.tensor and module.get_parameter(name).shape == keep.shape:
                masks[name] = keep
        return {name: mask.to(weight.device) for name, mask in masks.items()}

    def closed(self, masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return what must be masked besides, so that nothing is left of a masked channel.

        A channel whose every producer is masked still gets a constant from a normalisation's or
        a layer's bias. The masks returned take those out, for modules that have such parameters.
        Where there is none to mask, as in a normalisation without affine parameters, they cover the
        weights that read the constant.
        """
        masks = _as_rows(masks)
        known = self._remembered(masks)
        if known is None and not len(self._gone(masks)):
            return {}
        return (known or self.closing(masks)).masks

    def closing(self, masks: Mapping[str, Mapping[str, Tensor]]) -> Closing:
        """Return what must be masked besides, and what the speedup removes then.

        The model must not be wrapped meanwhile.
        """
        masks = _as_rows(masks)
        closing = self._remembered(masks)
        if closing is None:
            closing = self._close(masks)
            # A pruner asks before it puts masks in force, and once more when they are.
            kept = [mask for each in masks.values() for mask in each.values()]  # or their addresses
            self._last = kept, self._moment(masks), closing
        return closing

    def _remembered(self, masks: Mapping[str, Mapping[str, Tensor]]) -> Closing | None:
        """Return the last answer, if it was to the same question."""
        if self._last is None or (moment := self._moment(masks)) is None:
            return None
        return self._last[2] if moment == self._last[1] else None

    def _moment(self, masks: Mapping[str, Mapping[str, Tensor]]) -> tuple[Any, ...] | None:
        """Return what tells these masks and the model's numbers from any others, if anything."""
        tensors = [mask for each in masks.values() for mask in each.values()]
        names = [(name, *each) for name, each in masks.items()]
        moments = [_moment_of(each) for each in (*tensors, *named_parameters(self._model).values())]
        return None if None in moments else (*names, *moments)

    @collecting_later()
    def _close(self, masks: Mapping[str, Mapping[str, Tensor]]) -> Closing:
        gone = self._gone(masks)
        more = self._masks(gone, wide=False)
        found = self._standing(masks, more)
        constants = gone[found.constants[gone]]
        if len(constants):
            for name, tensors in self._masks(constants, wide=True).items():
                known = more.setdefault(name, {})
                known |= {leaf: mask & known.get(leaf, mask) for leaf, mask in tensors.items()}
            found = self._standing(masks, more)
        return Closing(more, found.removable)

    def _standing(
        self, masks: Mapping[str, Mapping[str, Tensor]], more: Mapping[str, Mapping[str, Tensor]]
    ) -> Standing:
        from prune_speedup.engine.mask_effects import standing
        from prune_speedup.torch.masks import flat_masks, zeros_of

        flat = flat_masks(self._model, masks)
        for path, tensors in more.items():  # masks of our own, so there is nothing to check
            for leaf, mask in tensors.items():
                name, mask = f"{path}.{leaf}" if path else leaf, in_rows(mask.cpu())
                flat[name] = mask & flat[name] if name in flat else mask
        labelling = self.units.labelling
        return standing(labelling, zeros_of(self._model, labelling.graph, flat))

    def _masks(self, units: Array, *, wide: bool) -> dict[str, dict[str, Tensor]]:
        """Return masks of units on what wrappers can mask.

        Args:
            units: The units.
            wide: Whether tensors of several axes are masked too, or only such as biases.
        """
        masks: dict[str, dict[str, Tensor]] = {}
        gone = self.marked(units)
        for (tensor, axis), classes in self.units.axes.items():
            axes = len(self.units.shapes[tensor])
            if axes != 1 and not wide:
                continue
            path, _, leaf = tensor.rpartition(".")
            module, lost = self.modules.get(path), gone[classes]
            if module is None or not np.count_nonzero(lost) or leaf not in masked_names(module):
                continue
            parameter = module.get_parameter(leaf)
            keep = torch.from_numpy(~lost).to(parameter.device)
            keep = keep.reshape([-1 if each == axis else 1 for each in range(axes)])
            known = masks.setdefault(path, {})
            mask = keep.expand(parameter.shape).contiguous()
            known[leaf] = mask & known[leaf] if leaf in known else mask
        return masks

    def whole(self, masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return masks, `{tensor name: mask}`, of all that belongs to a channel so masked.

        Besides biases and norms those are parameters that no pruner masks, such as the positions
        that are added to a channel.
        """
        return self.every_slice(self._gone(masks))

    def every_slice(self, units: Array) -> dict[str, Tensor]:
        """Return masks, `{tensor name: mask}`, of all that belongs to some units."""
        every: dict[str, Tensor] = {}
        gone = self.marked(units)
        parameters = {self.units.aliases.get(n, n) for n in named_parameters(self._model)}
        for (tensor, axis), classes in self.units.axes.items():
            lost = torch.from_numpy(np.flatnonzero(gone[classes]))
            if len(lost) and tensor in parameters:
                mask = every.get(tensor)
                if mask is None:
                    mask = torch.ones(self.units.shapes[tensor], dtype=torch.bool, device="cpu")
                    every[tensor] = mask
                mask.index_fill_(axis, lost, False)
        return every

    def _gone(self, masks: Mapping[str, Mapping[str, Tensor]]) -> Array:
        """Return the units of which every producer is masked."""
        made, alive = (np.zeros(self._labels, dtype=np.bool_) for _ in range(2))
        for producer in self.producers.values():
            made[producer.classes] = True
            mask = masks.get(producer.name, {}).get(producer.tensor)
            if mask is None:
                alive[producer.classes] = True
                continue
            module = self.modules[producer.name]
            left = held_on(mask if mask.dtype == torch.bool else mask != 0, output_axis(module))
            left = unspread(module, left) if is_recurrent(module) else left
            alive[producer.classes[left.cpu().numpy()]] = True
        alive[FIXED] = True
        return np.flatnonzero(made & ~alive)

"""Where the coupled units of a model meet its prunable modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prune_core.masking import output_axis, weight_name

if TYPE_CHECKING:
    from prune_speedup.engine.labels import Array
    from prune_speedup.engine.units import UnitGroup, Units

__all__ = ["Coupling", "Producer"]


@dataclass(frozen=True, slots=True)
class Producer:
    """A module whose output channels belong to units.

    Attributes:
        name: The module's name.
        tensor: The name of its weight.
        classes: For each output channel the number of its unit, 0 where it must stay.
    """

    name: str
    tensor: str
    classes: Array


class Coupling:
    """The units of a model, seen from the modules that make channels.

    Args:
        model: A model that is not wrapped; it is run once and left as it was.
        example_inputs: A tensor, a tuple or a dict.
    """

    def __init__(self, model: nn.Module, example_inputs: Any) -> None:
        from prune_speedup.torch.analysis import units  # tracing is imported when it is used

        self.units: Units = units(model, example_inputs)
        self._model = model
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.producers = {
            producer.name: producer
            for name, axis in self.units.axes
            if (producer := self._producer(name, axis)) is not None
        }

    def _producer(self, tensor: str, axis: int) -> Producer | None:
        path, _, leaf = tensor.rpartition(".")
        module = self.modules.get(path)
        if module is None or leaf != weight_name(module):
            return None
        if len(self.units.shapes[tensor]) < 2 or axis != output_axis(module):
            return None
        return Producer(path, leaf, self.units.axes[tensor, axis])

    def of_group(self, group: UnitGroup) -> list[Producer]:
        """Return the modules that make the channels of a group."""
        names = [tensor.rpartition(".")[0] for tensor, _ in group.axes]
        return [
            self.producers[name]
            for name in dict.fromkeys(names)
            if name in self.producers
            and bool(np.isin(self.producers[name].classes, group.labels).any())
        ]

    def closed(self, masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return what must be masked besides, so that a masked channel is zero all the way.

        A channel whose every producer is masked still gets a constant from a normalisation's or
        a layer's bias. The masks returned take those out, for modules that have such parameters.
        """
        gone = self._gone(masks)
        more: dict[str, dict[str, Tensor]] = {}
        for (tensor, axis), classes in self.units.axes.items():
            path, _, leaf = tensor.rpartition(".")
            module = self.modules.get(path)
            parameter = getattr(module, leaf, None)
            if module is None or not isinstance(parameter, nn.Parameter) or parameter.ndim != 1:
                continue
            if weight_name(module) is None or axis != 0:
                continue
            keep = torch.from_numpy(~np.isin(classes, gone)).to(parameter.device)
            if not bool(keep.all()):
                more.setdefault(path, {})[leaf] = keep
        return more

    def whole(self, masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return masks, `{tensor name: mask}`, of all that belongs to a channel so masked.

        Besides biases and norms those are parameters that no pruner masks, such as the positions
        that are added to a channel.
        """
        gone = self._gone(masks)
        whole: dict[str, Tensor] = {}
        parameters = {self.units.aliases.get(n, n) for n, _ in self._model.named_parameters()}
        for (tensor, axis), classes in self.units.axes.items():
            lost = torch.from_numpy(np.flatnonzero(np.isin(classes, gone)))
            if len(lost) and tensor in parameters:
                mask = whole.get(tensor)
                if mask is None:
                    mask = torch.ones(self.units.shapes[tensor], dtype=torch.bool, device="cpu")
                    whole[tensor] = mask
                mask.index_fill_(axis, lost, False)
        return whole

    def _gone(self, masks: Mapping[str, Mapping[str, Tensor]]) -> Array:
        """Return the units of which every producer is masked."""
        alive: set[int] = set()
        made: set[int] = set()
        for producer in self.producers.values():
            made.update(producer.classes.tolist())
            mask = masks.get(producer.name, {}).get(producer.tensor)
            if mask is None:
                alive.update(producer.classes.tolist())
                continue
            axis = output_axis(self.modules[producer.name])
            others = [a for a in range(mask.ndim) if a != axis]
            left = (mask != 0).amax(dim=others).cpu().numpy()
            alive.update(producer.classes[left].tolist())
        return np.array(sorted(made - alive - {0}), dtype=np.int64)

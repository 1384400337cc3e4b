"""Coupled units, seen from the layers that read them, and what the pruners of units share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from prune_core.errors import warn
from prune_core.masking import output_axis, weight_name
from prune_core.masking.recurrent import hidden_names, is_recurrent, rows
from prune_core.pruning.pruner import ConfigList
from prune_oneshot.inputs import check_calibrate
from prune_speedup.torch import Coupling, DependencyAwareAllocator
from prune_toolkit import (
    ChannelPruner,
    InputCollector,
    MetricsCalculator,
    Statistics,
    StraightMetricsCalculator,
)
from prune_toolkit.basic import Options
from prune_toolkit.blockwise import example_of
from prune_toolkit.calibration.layers import feature_axis, is_layer, matrix_of
from prune_toolkit.calibration.precision import wide

__all__ = ["Reader", "UnitCollector", "UnitPruner", "UnitScores", "readers_of"]


@dataclass(frozen=True)
class Reader:
    """A layer that gets channels of units as its input.

    Attributes:
        name: Its name.
        module: The layer.
        units: For each of its input channels the number of the unit, 0 where it must stay; of a
            grouped convolution those of one group.
    """

    name: str
    module: nn.Module
    units: Tensor

    def weight(self) -> Tensor:
        """Return its weight, `(groups, outputs, features)`."""
        parameter = self.module.get_parameter(weight_name(self.module) or "weight")
        return wide(matrix_of(self.module, parameter.detach()))

    def features(self, unit: int) -> Tensor:
        """Return the features of a group that belong to a unit."""
        return self.unit_of_feature().eq(unit).nonzero().flatten()

    def unit_of_feature(self) -> Tensor:
        """Return for each feature of a group the number of its unit."""
        places = prod(getattr(self.module, "kernel_size", (1,)))
        return self.units.repeat_interleave(places)


def readers_of(coupling: Coupling) -> dict[str, Reader]:
    """Return the layers that read channels of units."""
    found = {}
    for (tensor, axis), classes in coupling.units.axes.items():
        name, _, leaf = tensor.rpartition(".")
        module = coupling.modules.get(name)
        if module is None or not is_layer(module) or isinstance(module, nn.Embedding):
            continue
        if leaf == weight_name(module) and axis == feature_axis(module):
            found[name] = Reader(name, module, torch.from_numpy(np.ascontiguousarray(classes)))
    return found


class UnitCollector(InputCollector):
    """Scores units by what the layers that read them get, and spreads the scores over channels.

    The channels of a unit, in all modules that make some, get equal parts of its score, so that
    an allocator that adds them up finds it again.

    Args:
        compressor: A pruner with a `coupling`.
        calibrate: Runs the model on some batches.
        batches: Stop after this many, or None.
    """

    compressor: UnitPruner

    def layers(self) -> dict[str, nn.Module]:
        """Return the layers that read channels of units."""
        self._readers = readers_of(self.compressor.coupling)
        return {name: reader.module for name, reader in self._readers.items()}

    def required(self) -> Collection[str]:
        """Ask for none: a layer that data does not reach reads nothing."""
        return ()

    def data(self, found: Mapping[str, Statistics]) -> dict[str, Tensor]:
        """Return a score for each output channel of the wrapped modules."""
        scores = UnitScores(self.compressor.coupling)
        self._say_unreached(found)
        for name, statistics in found.items():
            reader = self._readers[name]
            scores.add(reader.unit_of_feature(), self.read(reader, statistics))
        return scores.over_channels(self.compressor)

    def _say_unreached(self, found: Mapping[str, Statistics]) -> None:
        """Name the modules whose channels are read, but by layers that got no data."""
        producers, reached = self.compressor.coupling.producers, [self._readers[n] for n in found]
        for name in self.compressor.get_modules_wrapper():
            made = producers.get(name)
            if made is None:
                continue
            units = torch.from_numpy(made.classes)
            read_by = [
                n for n, each in self._readers.items() if torch.isin(units, each.units).any()
            ]
            if read_by and not any(torch.isin(units, each.units).any() for each in reached):
                warn(
                    f"The data never reach {read_by[0]!r}, which reads the channels of {name!r}, "
                    "so those are ranked by their weights alone. Give data that reach it, or "
                    f"exclude {name!r}."
                )

    def read(self, reader: Reader, statistics: Statistics) -> Tensor:
        """Return what a layer reads of each feature: its statistic times its squared weights."""
        squares = reader.weight().square().sum(1)
        return (self.of(statistics).to(squares.dtype) * squares).sum(0)


class UnitScores:
    """A number for each unit of a model, added up from what is known of its slices.

    Args:
        coupling: The units.
    """

    def __init__(self, coupling: Coupling) -> None:
        self.coupling = coupling
        every = [int(classes.max(initial=0)) for classes in coupling.units.axes.values()]
        self.values = torch.zeros(1 + max(every, default=0), dtype=torch.float64, device="cpu")
        self._known = torch.zeros_like(self.values, dtype=torch.bool)

    def add(self, units: Tensor, values: Tensor) -> None:
        """Add a value to each of some units, which may be named several times."""
        self.values.index_add_(0, units, values.detach().double().cpu())
        self._known[units] = True

    def over_channels(self, pruner: UnitPruner) -> dict[str, Tensor]:
        """Return the scores of the wrapped modules' output channels, which add up to the units'."""
        self._fill()
        producers = self.coupling.producers
        parts = torch.zeros_like(self.values)
        for producer in producers.values():
            units = torch.from_numpy(producer.classes)
            parts.index_add_(0, units, torch.ones(len(units), dtype=parts.dtype))
        scores = {}
        for name, wrapper in pruner.get_modules_wrapper().items():
            device = wrapper.parameter(wrapper.target).device
            made = producers.get(name)
            if made is None:  # it stays whole
                self._say_unused(name)
                channels = len(_made_of(wrapper.module))
                scores[name] = torch.zeros(channels, dtype=torch.float64, device=device)
                continue
            units = torch.from_numpy(made.classes)
            scores[name] = (self.values / parts.clamp_min(1))[units].to(device)
        return scores

    def _say_unused(self, name: str) -> None:
        units, module = self.coupling.units, self.coupling.modules[name]
        weight = f"{name}.{weight_name(module)}"
        if units.aliases.get(weight, weight) not in units.shapes:
            warn(
                f"{name!r} stays dense: it was not called when the model ran on the example. Give "
                f"data that reach it, or exclude it: {{'op_names': [{name!r}], 'exclude': True}}."
            )

    def _fill(self) -> None:
        """Score by the weights that make them the units of which no reader is understood."""
        for producer in self.coupling.producers.values():
            units = torch.from_numpy(producer.classes)
            own = _made_of(self.coupling.modules[producer.name]).square().sum(1).double().cpu()
            self.values.index_add_(0, units, torch.where(self._known[units], 0.0, own))


def _made_of(module: nn.Module) -> Tensor:
    """Return the weights that make each output channel, or hidden unit, as rows."""
    if is_recurrent(module):
        names = [name for name in hidden_names(module) if name.startswith("weight")]
        return wide(rows(module, {name: module.get_parameter(name).detach() for name in names}))
    weight = module.get_parameter(weight_name(module) or "weight").detach()
    return wide(weight.transpose(0, output_axis(module)).flatten(1))


class UnitPruner(ChannelPruner):
    """Prunes coupled units by what the layers that read them get.

    A unit is the smallest set of slices that can only be removed together: a hidden feature of an
    MLP, an attention head with its keys and values, a channel of a residual stream.

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: `"dependency_aware"` takes the same ratio of each group of units, `"global"` ranks
            the units of all groups together, by scores over the mean of their group.
        dummy_input: What the model is traced with; what `calibrate` calls it with first, unless
            given.
        **options: `calibrate=`, which is needed, and what else `BasicPruner` takes.
    """

    needs_data: ClassVar[bool] = True
    modes: ClassVar[tuple[str, ...]] = ("dependency_aware", "global")

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "dependency_aware",
        dummy_input: Any = None,
        **options: Unpack[Options],
    ) -> None:
        calibrate = check_calibrate(self, options.get("calibrate"))
        if dummy_input is None and isinstance(model, nn.Module):
            dummy_input = example_of(model, calibrate)
        super().__init__(model, config_list, mode, dummy_input, **options)

    @property
    def coupling(self) -> Coupling:
        """The units of the model."""
        allocator = self.sparsity_allocator
        assert isinstance(allocator, DependencyAwareAllocator)
        return allocator.coupling

    def calculator(self) -> MetricsCalculator:
        """Take what was gathered for the scores."""
        return StraightMetricsCalculator(copy=False)

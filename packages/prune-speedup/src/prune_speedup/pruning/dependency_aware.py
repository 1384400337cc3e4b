"""The allocator that prunes what can be removed together, together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from math import gcd, lcm
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prune_core.errors import ConfigError, PruneWarning
from prune_core.pruning.allocate.base import Masks, SparsityAllocator, check_scores
from prune_core.pruning.allocate.per_layer import keep_mask
from prune_core.pruning.amount import number_to_prune
from prune_speedup.engine.families import alike
from prune_speedup.pruning.coupling import Coupling, Producer

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner
    from prune_speedup.engine.labels import Array
    from prune_speedup.engine.units import UnitGroup

__all__ = ["DependencyAwareAllocator"]


class DependencyAwareAllocator(SparsityAllocator):
    """Prunes whole units, so that every masked channel can really be removed.

    Channels that are added to each other, or that one grouped convolution treats alike, stand or
    fall together: the score of a unit is the sum of its channels' scores over all modules, and
    modules of one group lose the smallest ratio that any of them is asked for. A channel that has
    to stay, such as an output of the model, is never masked.

    Args:
        pruner: The pruner.
        dummy_input: An input of the model: a tensor, a tuple or a dict.
        continuous_mask: Whether what is masked stays masked.
        round_to: Leave a multiple of this many channels in each module, for hardware that likes
            multiples of 8; what is left is rounded up.
        uniform: Take the same number of units from groups that are alike, so that one number,
            such as a model's config has it, describes the width of all their layers. Two groups
            are alike if they have as many units and cut tensors of the same shape the same way.
    """

    def __init__(
        self,
        pruner: Pruner,
        dummy_input: Any,
        continuous_mask: bool = True,
        round_to: int = 1,
        uniform: bool = False,
    ) -> None:
        super().__init__(pruner, channels=True, continuous_mask=continuous_mask)
        if dummy_input is None:
            raise ConfigError(
                "Dependency-aware pruning follows an input through the model to see which "
                "channels belong together; give it one: dummy_input=torch.rand(1, 3, 224, 224)."
            )
        if not isinstance(round_to, int) or round_to < 1:
            raise ConfigError(f"round_to is {round_to!r}; it must be a whole number of at least 1.")
        self.round_to = round_to
        self.uniform = uniform
        self._spared: frozenset[int] = frozenset()
        with pruner.plain() as model:
            self.coupling = Coupling(model, dummy_input)

    def generate_sparsity(self, metrics: Mapping[str, Tensor]) -> Masks:
        """Return the masks; modules of one group agree on their channels."""
        wrappers = self.pruner.get_modules_wrapper()
        pruned = self.choose(metrics)
        masks = {}
        for name, wrapper in wrappers.items():
            producer = self.coupling.producers.get(name)
            keep = torch.ones(metrics[name].shape, dtype=torch.bool, device="cpu")
            if producer is not None:
                keep = torch.from_numpy(~np.isin(producer.classes, pruned))
            device = wrapper.parameter(wrapper.target).device
            masks[name] = self._expand_mask(name, keep.to(device))
        return masks

    def spare(self, units: Iterable[int]) -> None:
        """Leave the groups alone that these units belong to."""
        these = set(units)
        groups = (set(group.labels) for group in self.coupling.units.groups)
        self._spared = frozenset().union(*(labels for labels in groups if labels & these))

    def choose(self, metrics: Mapping[str, Tensor]) -> list[int]:
        """Return the numbers of the units to prune, as `Units.unit` takes them."""
        wrappers = self.pruner.get_modules_wrapper()
        for name in wrappers:
            check_scores(name, metrics[name])
        groups = self.coupling.units.groups
        families = alike(self.coupling.units) if self.uniform else [[group] for group in groups]
        pruned: list[int] = []
        for family in families:
            if any(not self._spared.isdisjoint(group.labels) for group in family):
                continue
            producers = [self.coupling.of_group(group) for group in family]
            if any(producer.name in wrappers for each in producers for producer in each):
                pruned += self._pruned_of(family, producers, metrics)
        return pruned

    def _pruned_of(
        self,
        family: list[UnitGroup],
        producers: list[list[Producer]],
        metrics: Mapping[str, Tensor],
    ) -> list[int]:
        """Choose units of groups that lose as many as each other."""
        wrappers = self.pruner.get_modules_wrapper()
        every = [producer.name for each in producers for producer in each]
        held = [name for name in every if name not in wrappers]
        held += [group.name for group, each in zip(family, producers, strict=True) if not each]
        if held:
            wanted = next(name for name in every if name in wrappers)
            warnings.warn(
                f"{wanted!r} is left dense: its channels belong together with those of "
                f"{held[0]!r}, which the config_list does not select"
                + (", or have to be as many, for uniform=True." if len(family) > 1 else "."),
                PruneWarning,
                stacklevel=5,
            )
            return []
        sparsity = min(wrappers[name].config["sparsity"] for name in every)
        multiple = lcm(
            *(
                _multiple(self.round_to, each, np.array(group.labels))
                for group, each in zip(family, producers, strict=True)
            )
        )
        total = len(family[0])
        count = _rounded(number_to_prune(sparsity, total), total, multiple)
        scored = [
            self._scores(group, each, metrics)
            for group, each in zip(family, producers, strict=True)
        ]
        dead = max(total - int(alive.count_nonzero()) for _, _, alive in scored)
        pruned: list[int] = []
        for labels, scores, alive in scored:
            pruned += labels[~keep_mask(scores, max(count, dead), alive).numpy()].tolist()
        return pruned

    def _scores(
        self, group: UnitGroup, producers: list[Producer], metrics: Mapping[str, Tensor]
    ) -> tuple[Array, Tensor, Tensor]:
        """Return the units of a group, sorted, with their scores and whether they are in force."""
        labels = np.sort(np.array(group.labels))
        scores = torch.zeros(len(labels), dtype=torch.float64, device="cpu")
        alive = torch.ones(len(labels), dtype=torch.bool, device="cpu")
        for producer in producers:
            inside = np.isin(producer.classes, labels)
            place = torch.from_numpy(np.searchsorted(labels, producer.classes[inside]))
            channels = torch.from_numpy(np.flatnonzero(inside))
            scores.index_add_(0, place, metrics[producer.name].cpu().double()[channels])
            mask = self._alive(producer.name)
            if mask is not None:
                alive[place] &= mask.cpu()[channels]
        return labels, scores, alive


def _multiple(round_to: int, producers: list[Producer], labels: Array) -> int:
    """Return how many units make a multiple of `round_to` channels in every module.

    A unit may be several channels of a module: one of each group, or a whole head.
    """
    widths = [np.isin(producer.classes, labels).sum() // len(labels) for producer in producers]
    return lcm(*(round_to // gcd(round_to, int(width)) for width in widths))


def _rounded(count: int, total: int, multiple: int) -> int:
    """Prune fewer, so that what is left is a multiple; never more."""
    left = total - count
    return total - min(total, left + -left % multiple)

"""The allocator that prunes what can be removed together, together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_core.amount import DEFAULT_CAP
from prune_core.errors import ConfigError, warn
from prune_core.masking import Masks
from prune_speedup.engine.labels import among
from prune_speedup.engine.ranking import Asked, units_that_go
from prune_speedup.engine.selection import Choice, Family, choice
from prune_speedup.pruning.coupling import Coupling
from prune_speedup.pruning.families import spare, spare_normed, sparing, staying
from prune_toolkit.allocate.base import SparsityAllocator, check_scores
from prune_toolkit.allocate.over_layers import check_ranked_together, weights_of

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = ["DependencyAwareAllocator"]


class DependencyAwareAllocator(SparsityAllocator):
    """Prunes whole units, so that every masked channel can really be removed.

    Channels that are added to each other, or that one grouped convolution treats alike, stand or
    fall together: the score of a unit is the sum of its channels' scores over all modules, and
    modules of one group lose the smallest ratio that any of them is asked for. A channel that has
    to stay, such as an output of the model, is never masked; nor is one that the speedup would
    leave in the model, such as one that a layer normalisation runs over.

    Args:
        pruner: The pruner.
        dummy_input: An input of the model: a tensor, a tuple or a dict.
        continuous_mask: Whether what is masked stays masked.
        round_to: Leave a multiple of this many channels in each module, for hardware that likes
            multiples of 8; what is left is rounded up.
        uniform: Take the same number of units from groups that are alike, so that one number,
            such as a model's config has it, describes the width of all their layers. Two groups
            are alike if they have as many units and cut tensors of the same shape the same way.
        constants: What the speedup will be told to do with masked channels that are not zero. With
            `"zero"` it removes more, and more is masked.
        across: Rank the units of all groups of a `config_list` entry together, instead of taking
            the same ratio of each. Scores are divided by the mean of their group first; the
            entry's ratio is one of the weights of all channels that may go, and no group loses
            more than `max_sparsity_per_layer` of its units.
        tells_of_spared: Warn of modules that keep all of their channels because the speedup would
            leave them. Who did not ask for them by name is told only if they have most of the
            weights.
    """

    def __init__(
        self,
        pruner: Pruner,
        dummy_input: Any,
        continuous_mask: bool = True,
        round_to: int = 1,
        uniform: bool = False,
        constants: str = "exact",
        across: bool = False,
        tells_of_spared: bool = True,
    ) -> None:
        self.across, self.tells_of_spared = across, tells_of_spared
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
        self.constants = constants
        self.as_one = False
        self._choice: tuple[tuple[bool, str], Choice] | None = None
        self._together: tuple[tuple[bool, str], Choice] | None = None
        self._told: set[str] = set()
        with pruner.plain() as model:
            self.coupling = Coupling(model, dummy_input)

    def check_settings(self) -> None:
        """Refuse a ratio per layer where layers are ranked together."""
        super().check_settings()
        if self.across:
            check_ranked_together(self.pruner)

    def generate_sparsity(self, metrics: Mapping[str, Tensor]) -> Masks:
        """Return the masks; modules of one group agree on their channels.

        Args:
            metrics: The scores of each module.
        """
        if (masks := self._untried(metrics)) is not None:
            return masks
        return self._masks(self.choose(metrics), metrics)

    def _untried(self, metrics: Mapping[str, Tensor]) -> Masks | None:
        """Return masks over all that is selected, if the speedup would remove what they cover.

        Most often it would. A trial beforehand costs as much as to see it of the masks themselves.
        """
        if self.across or self._tried():
            return None
        families = self._sorted_out().families
        pruned = self._chosen(families, metrics)
        masks = self._masks(pruned, metrics)
        if self.constants == "zero":
            return masks
        with self.pruner.plain():
            stays = staying(self.coupling, masks, np.array(pruned, dtype=np.int64))
        if not len(stays):
            self._tell_of_spared(self._sorted_out())
            return masks
        groups = [group.labels for family in families for group in family.groups]
        if all(among(labels, pruned).any() for labels in groups):
            self._choose_from(sparing(self._sorted_out(), stays))  # that was as good a trial
        return None

    def _masks(self, pruned: list[int], metrics: Mapping[str, Tensor]) -> Masks:
        masks = {}
        gone = self.coupling.marked(pruned)
        for name, wrapper in self.pruner.get_modules_wrapper().items():
            producer = self.coupling.producers.get(name)
            if producer is None:
                keep = torch.ones(metrics[name].shape, dtype=torch.bool, device="cpu")
            else:
                keep = torch.from_numpy(~gone[producer.classes])
            device = wrapper.parameter(wrapper.target).device
            masks[name] = self._expand_mask(name, keep.to(device), own=False)
        return masks

    @property
    def choice(self) -> Choice:
        """What may be pruned, and what not; found out once, with a warning of what is left out."""
        if not self._tried():
            found = self._sorted_out()
            if self.constants != "zero":
                with self.pruner.plain():
                    found = spare(self.coupling, found)
            self._choose_from(found)
        assert self._choice is not None
        return self._choice[1]

    def _choose_from(self, found: Choice) -> None:
        self._tell_of_spared(found)
        self._choice = self._settings, found

    @property
    def _settings(self) -> tuple[bool, str]:
        return self.uniform, self.constants

    def _tried(self) -> bool:
        return self._choice is not None and self._choice[0] == self._settings

    def _sorted_out(self) -> Choice:
        """What belongs together and is selected; the speedup may yet keep some of it."""
        if self._together is None or self._together[0] != self._settings:
            selected = self.pruner.get_modules_wrapper()
            found = choice(self.coupling, selected, uniform=self.uniform)
            self._tell_of_held(found)
            if self.constants != "zero":
                found = spare_normed(self.coupling, found)
            self._together = self._settings, found
        return self._together[1]

    def _tell_of_held(self, found: Choice) -> None:
        for name, other in found.held.items():
            warn(
                f"{name!r} is left dense: its channels belong together with those of {other!r}, "
                "which the config_list does not select"
                + (", or have to be as many, for uniform=True." if self.uniform else ".")
            )

    def _tell_of_spared(self, found: Choice) -> None:
        names = [name for name in dict.fromkeys(found.spared) if name not in self._told]
        self._told.update(names)
        if names and (self.tells_of_spared or not self._mostly_free(names)):
            warn(
                f"{', '.join(map(repr, names[:3]))}{' and others' if names[3:] else ''} keep all "
                "of their channels: a normalisation runs over them, or something that no pruner "
                "masks is added to them, so that shrink() would not remove them. With "
                "constants='zero' here and there they go as well, and the output moves by as much "
                "as the report says."
            )

    def _mostly_free(self, spared: list[str]) -> bool:
        """Whether more weights are in modules that may lose channels than in those spared."""
        sizes = {
            name: wrapper.parameter(wrapper.target).numel()
            for name, wrapper in self.pruner.get_modules_wrapper().items()
        }
        return 2 * sum(sizes.get(name, 0) for name in spared) < sum(sizes.values())

    def choose(self, metrics: Mapping[str, Tensor]) -> list[int]:
        """Return the numbers of the units to prune, as `Units.unit` takes them.

        Args:
            metrics: The scores of each module.
        """
        return self._chosen(self.choice.families, metrics)

    def _chosen(self, families: list[Family], metrics: Mapping[str, Tensor]) -> list[int]:
        wrappers = self.pruner.get_modules_wrapper()
        for name in wrappers:
            check_scores(name, metrics[name])

        def scores(name: str) -> npt.NDArray[np.float64]:
            return metrics[name].detach().cpu().double().numpy()

        def alive(name: str) -> npt.NDArray[np.bool_] | None:
            mask = self._alive(name)
            return None if mask is None else mask.cpu().numpy()

        asked = {
            name: Asked(
                float(wrapper.config["sparsity"]),
                wrapper.config["entry"],
                weights_of(wrapper),
                wrapper.config.get("max_sparsity_per_layer", DEFAULT_CAP),
            )
            for name, wrapper in wrappers.items()
        }
        return units_that_go(
            families,
            scores,
            alive,
            asked,
            across=self.across,
            as_one=self.as_one,
            round_to=self.round_to,
        )

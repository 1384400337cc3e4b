"""Channels that can only go together are ranked together, so that all that is masked can go.

What belongs together, how it is scored and how many of it go is the engine's, as for torch models;
here is where the layers of a Keras model meet it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import keras
import numpy as np

from prune_core.amount import DEFAULT_CAP
from prune_core.errors import ConfigError, warn
from prune_speedup.engine.labels import among
from prune_speedup.engine.ranking import Asked, units_that_go
from prune_speedup.engine.selection import Choice, Producer, choice
from prune_speedup.engine.units import UnitGroup
from prune_tf.layers import Named, layers_of
from prune_tf.pruning.allocate import check_scores
from prune_tf.pruning.targets import Target, weights_of
from prune_tf.speedup.channels import CELLS, channels_of, is_own
from prune_tf.speedup.find_units import analysed
from prune_tf.speedup.labelling import unknown_in

__all__ = ["Coupling"]

Array = np.ndarray[Any, Any]
Ratio = Callable[[Target], float]


class Coupling:
    """Which output channels of a model's layers belong together.

    Channels that are added to each other, or that a depthwise convolution hands on one by one, are
    a unit. Units that cut the same tensors are a group and compete with each other.

    Args:
        model: A built model.
        example_inputs: What a subclassed model is called with, unless it tells by itself.

    Attributes:
        units: The units of the model.
        producers: The layers that make channels of which some can go, by name.
        round_to: A multiple of this many channels is left of each layer.
        uniform: Whether groups that are alike lose as many units.
        across: Whether the units of all groups of a config's entry are ranked together.
        own_types: The classes of the user's own layers, and of the cells of recurrent ones, that
            make some of these channels.

    Raises:
        SpeedupError: When the calls of a subclassed model cannot be followed.
    """

    def __init__(self, model: keras.Model, example_inputs: Any = None) -> None:
        self.round_to, self.uniform, self.across = 1, False, False
        self.units, made = analysed(model, example_inputs)
        labelling, unknown = self.units.labelling, unknown_in(made, self.units.labelling)
        self.producers: dict[str, Producer] = {}
        self._own: dict[str, str] = {}
        self._axes: dict[str, int | None] = {}
        self._reasons: dict[str, str] = {}
        self._choice: tuple[tuple[bool, frozenset[str]], Choice] | None = None
        kinds: dict[str, None] = {}
        for named in layers_of(model):
            found = channels_of(made, labelling, named.layer)
            if not found:
                self._reasons[named.name] = _why_unread(named, unknown)
            names = {slot.name: name for name, slot in weights_of(named)}
            for each in found:
                # What has to stay, such as an output of the model, is in no unit.
                fixed = labelling.labels.is_fixed(each.labels)
                classes = np.where(fixed, 0, labelling.labels.find(each.labels))
                name = names.get(each.slot, named.name)
                if classes.any():
                    self.producers[name] = Producer(name, "", classes)
                    self._axes[name] = each.axis
                why = next(filter(None, labelling.labels.reasons(each.labels[fixed])), "")
                if why:
                    self._reasons[name] = why
            if found and (is_own(named.layer) or type(named.layer).__name__ in CELLS):
                self._own |= dict.fromkeys(names.values(), named.name)
                kinds[type(named.layer).__name__] = None
        self.own_types = tuple(kinds)

    def of_group(self, group: UnitGroup) -> list[Producer]:
        """Return the layers that make the channels of a group."""
        makers = self.producers.values()
        return [maker for maker in makers if among(maker.classes, group.labels).any()]

    def why_fixed(self, name: str) -> str:
        """Return why a layer can lose none of its output channels."""
        return self._reasons.get(name, "its channels are followed nowhere")

    def placed(self, targets: Sequence[Target]) -> list[Target]:
        """Return the targets that make channels, each with the axis along which these lie.

        Of a layer of the user's own, those weights stay out that only read channels. One of which
        nothing is selected goes with what it belongs to.

        Args:
            targets: What the config selects.
        """
        selected = {target.layer_name for target in targets}
        for name, layer in self._own.items():
            if layer not in selected:
                self.producers.pop(name, None)
        making = {self._own[name] for name in self.producers if name in self._own}
        return [
            replace(target, along=self._axes.get(target.name))
            for target in targets
            if target.name in self.producers or self._own.get(target.name) not in making
        ]

    def check(self, targets: Sequence[Target], left_out: Sequence[str] = ()) -> None:
        """Say which layers stay as they are, and why.

        Args:
            targets: What the config selects.
            left_out: Classes of layers whose channels the algorithm cannot score.

        Raises:
            ConfigError: When that is all of them.
        """
        dense = [target.name for target in targets if target.name not in self.producers]
        told = [f"{name!r} stays dense: {self.why_fixed(name)}" for name in dense]
        if targets and len(dense) == len(targets):
            raise ConfigError(
                f"Nothing can be pruned where channels go together: {_some(told)}. "
                + (f"{', '.join(left_out)}: 'l1' prunes these by weights. " if left_out else "")
                + "mode='normal' masks each layer for itself, which makes nothing smaller."
            )
        # That outputs stay goes without saying.
        told = [text for text in told if not text.endswith("the model returns it")]
        if told:
            warn(f"{len(told)} of {len(targets)} selected layers keep all channels. {_some(told)}.")

    def choice(self, targets: Sequence[Target]) -> Choice:
        """Return what may be pruned, and what not; a warning says what is left out, once."""
        names = frozenset(target.name for target in targets)
        if self._choice is None or self._choice[0] != (self.uniform, names):
            found = choice(self, [target.name for target in targets], uniform=self.uniform)
            self._choice = (self.uniform, names), found
            for name, other in found.held.items():
                warn(
                    f"{name!r} is left dense: its channels belong together with those of "
                    f"{other!r}, which the config_list does not select"
                    + (", or have to be as many, for uniform=True." if self.uniform else ".")
                )
        return self._choice[1]

    def allocate(
        self,
        targets: Sequence[Target],
        scores: Mapping[str, Array],
        alive: Mapping[str, Array],
        ratio: Ratio,
    ) -> dict[str, Array]:
        """Return a mask of each layer's channels; layers of one group agree.

        The score of a unit is the sum of its channels' scores, and the layers of a group lose the
        smallest ratio that any of them is asked for.
        """
        return self.masks_of(targets, scores, self.choose(targets, scores, alive, ratio))

    def masks_of(
        self, targets: Sequence[Target], scores: Mapping[str, Array], gone: Sequence[int]
    ) -> dict[str, Array]:
        """Return which channels of each layer stay where some units go."""
        return {
            target.name: ~among(self.producers[target.name].classes, gone)
            if target.name in self.producers
            else np.ones(len(scores[target.name]), bool)
            for target in targets
        }

    def choose(
        self,
        targets: Sequence[Target],
        scores: Mapping[str, Array],
        alive: Mapping[str, Array],
        ratio: Ratio,
    ) -> list[int]:
        """Return the numbers of the units to prune, as `Units.unit` takes them."""
        for target in targets:
            check_scores(target.name, scores[target.name])
        asked = {
            target.name: Asked(
                ratio(target),
                target.config["entry"],
                prod(target.shape),
                target.config.get("max_sparsity_per_layer", DEFAULT_CAP),
            )
            for target in targets
        }
        return units_that_go(
            self.choice(targets).families,
            scores.__getitem__,
            alive.get,
            asked,
            across=self.across,
            round_to=self.round_to,
        )


def _why_unread(named: Named, unknown: Mapping[str, str]) -> str:
    """Why nothing is known of a layer's channels: the outermost layer that holds it has no rule."""
    for name in named.name.split("/"):
        if name in unknown:
            inside = "it" if name == named.name.rpartition("/")[2] else f"{name!r}, which holds it,"
            return f"{inside} is a {unknown[name]}, for which there is no rule"
    return "nothing calls it on the way from the inputs to the outputs"


def _some(told: Sequence[str]) -> str:
    more = f"; and {len(told) - 3} more" if told[3:] else ""
    return "; ".join(told[:3]) + more

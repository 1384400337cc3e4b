"""Channels that can only go together are ranked together, so that all that is masked can go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from prune_core.amount import number_to_prune
from prune_core.errors import ConfigError, warn
from prune_tf.layers import Named, layers_of
from prune_tf.pruning.allocate import check_scores, keep
from prune_tf.pruning.targets import Target
from prune_tf.speedup.graph import check_model
from prune_tf.speedup.propagate import analyse

__all__ = ["Coupling"]

Array = np.ndarray[Any, Any]


class Coupling:
    """Which output channels of a model's layers belong together.

    Channels that are added to each other, or that a depthwise convolution hands on one by one, are
    a unit. Units that pass through the same layers are a group and compete with each other.

    Args:
        model: A built model.

    Raises:
        SpeedupError: When the calls of a subclassed model cannot be followed.
    """

    def __init__(self, model: keras.Model) -> None:
        check_model(model)
        analysis = analyse(model, {})
        fixed = analysis.labels.fixed()
        self.classes: dict[str, Array] = {}
        self.reasons: dict[str, str] = {}
        for named in layers_of(model):
            labels = analysis.outputs(named.layer)
            if labels is None:
                self.reasons[named.name] = _why_unread(named, analysis.unknown)
                continue
            roots = analysis.labels.roots(labels)
            # What has to stay, such as an output of the model, is in no unit.
            self.classes[named.name] = np.where(np.isin(roots, [*fixed]), -1, roots)
            why = next((fixed[int(root)] for root in roots if int(root) in fixed), "")
            if why:
                self.reasons[named.name] = why
        through: dict[int, list[str]] = defaultdict(list)
        for name, classes in self.classes.items():
            for unit in np.unique(classes[classes >= 0]):
                through[int(unit)].append(name)
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for unit, names in sorted(through.items()):
            groups[tuple(names)].append(unit)
        self.groups = {names: np.array(units) for names, units in groups.items()}

    def check(self, targets: Sequence[Target]) -> None:
        """Say which layers stay as they are, and why.

        Raises:
            ConfigError: When that is all of them.
        """
        dense = {
            target.name: self.reasons.get(target.name, "its channels are followed nowhere")
            for target in targets
            if not (self.classes.get(target.name, np.array([-1])) >= 0).any()
        }
        told = [f"{name!r} stays dense: {why}" for name, why in dense.items()]
        if targets and len(dense) == len(targets):
            raise ConfigError(
                f"Nothing can be pruned where channels go together: {_some(told)}. "
                "mode='normal' masks each layer for itself, which makes nothing smaller."
            )
        # That outputs stay goes without saying.
        told = [text for text in told if not text.endswith("returns them")]
        if told:
            warn(f"{len(told)} of {len(targets)} selected layers keep all channels. {_some(told)}.")

    def allocate(
        self,
        targets: Sequence[Target],
        scores: Mapping[str, Array],
        alive: Mapping[str, Array],
        ratio: Callable[[Target], float],
    ) -> dict[str, Array]:
        """Return a mask of each layer's channels; layers of one group agree.

        The score of a unit is the sum of its channels' scores, and the layers of a group lose the
        smallest ratio that any of them is asked for.
        """
        chosen = {target.name: target for target in targets}
        for name in chosen:
            check_scores(name, scores[name])
        gone: list[int] = []
        for names, units in self.groups.items():
            inside = [name for name in names if name in chosen]
            if not inside:
                continue
            if len(inside) < len(names):
                other = next(name for name in names if name not in chosen)
                warn(
                    f"{inside[0]!r} is left dense: its channels belong together with those of "
                    f"{other!r}, which the config_list does not select."
                )
                continue
            total, left = np.zeros(len(units)), np.ones(len(units), bool)
            for name in inside:
                channels = np.flatnonzero(np.isin(self.classes[name], units))
                places = np.searchsorted(units, self.classes[name][channels])
                np.add.at(total, places, scores[name][channels])
                np.logical_and.at(left, places, alive[name][channels])
            count = number_to_prune(min(ratio(chosen[name]) for name in inside), len(units))
            gone += units[~keep(total, count, left)].tolist()
        return {
            name: ~np.isin(self.classes.get(name, np.full(len(scores[name]), -1)), gone)
            for name in chosen
        }


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

"""Masked channels that stay in the model, gathered by what keeps them there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import nn

from prune_core.masking.axes import output_axis
from prune_core.traversal import named_modules
from prune_speedup.engine.graph import Graph
from prune_speedup.engine.labels import Array
from prune_speedup.engine.mask_effects import Standing
from prune_speedup.engine.plan import Plan
from prune_speedup.engine.propagate import Zeros

__all__ = ["Kept", "Masked", "count_masked"]

_CONSTANT = (
    "a bias or a normalisation turns their zeros into a constant",
    "compress(example_inputs=...) masks that too; constants='remove' takes it out as it is",
)
_USED = (
    "something that is not masked still adds to them, such as the other side of a residual "
    "connection",
    "mode='dependency_aware' with dummy_input=... masks layers alike that belong together",
)
_NORMED = (
    "a layer normalisation runs over them",
    "constants='zero' removes them and normalises over those that are left",
)
_FORWARD = (
    "the forward insists on its sizes",
    "fallback=True shrinks the graph that torch.export makes of the model",
)
_LAST = ("nothing would be left of a layer", "Ask for less sparsity")
_FIXED = "Leave them out of the config_list; with example inputs, prune() does so by itself"


@dataclass(frozen=True, slots=True)
class Kept:
    """Masked channels that stay for one reason.

    Attributes:
        channels: How many.
        cause: What keeps them.
        remedy: What to do about it.
        modules: The layers that they belong to.
    """

    channels: int
    cause: str
    remedy: str
    modules: tuple[str, ...]

    @property
    def where(self) -> str:
        """The layers, in a few words."""
        first, *others = (repr(name) if name else "the model itself" for name in self.modules)
        return f"{first} and {len(others)} more" if others else first

    def __str__(self) -> str:
        return f"{self.channels:,} of {self.where}: {self.cause}. {self.remedy}"


class Masked(NamedTuple):
    """What became of the channels that masks cover as a whole.

    Attributes:
        asked: How many there are, module by module.
        kept: Those that stay, by cause, the most frequent first.
    """

    asked: int
    kept: list[Kept]


def count_masked(
    model: nn.Module, wanted: Plan, plan: Plan, found: Standing, asked: Zeros, *, masks: bool
) -> Masked:
    """Count masked channels of modules, and find what keeps those that stay.

    Args:
        model: The model.
        wanted: What was to be removed.
        plan: What is.
        found: What the masks leave of its units.
        asked: Which slices of which parameters the masks cover.
        masks: Whether there are any; otherwise that is what is zero.
    """
    channels = [*_channels(model, found, asked, masks=masks)]
    causes: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for module, labels in channels:
        stays = labels[~plan.removed[labels]]
        for cause in _causes(wanted, found, stays) if len(stays) else ():
            causes[cause][module] = causes[cause].get(module, 0) + 1
    kept = [
        Kept(sum(count.values()), cause, remedy, tuple(count))
        for (cause, remedy), count in causes.items()
    ]
    kept.sort(key=lambda each: -each.channels)
    return Masked(sum(len(labels) for _, labels in channels), kept)


def _channels(
    model: nn.Module, found: Standing, asked: Zeros, *, masks: bool
) -> Iterator[tuple[str, Array]]:
    """For each module the classes of those of its output channels that the masks cover.

    Scales and biases count only where no weight with inputs is masked for the same channel. Without
    masks a bias counts only together with its weight: many are zero that nobody has pruned.
    """
    graph, modules = found.labelling.graph, dict(named_modules(model, every_name=True))
    alive = defaultdict(list) if masks else _alive(found, asked)
    wide: dict[str, list[Array]] = defaultdict(list)
    narrow: dict[str, list[Array]] = defaultdict(list)
    for (value, axis), zero in asked.items():
        path, _ = _owner(graph.tensors[value][0])
        many = _is_wide(graph, value)
        column = found.labelling.axes[value][axis]
        if column is None or (many and axis != _channel_axis(modules.get(path, model))):
            continue
        labels = found.roots[column[zero]]
        if _is_bias(graph, value):
            beside = [each for name in graph.tensors[value] for each in alive[_owner(name)[0]]]
            labels = np.setdiff1d(labels, np.concatenate([*beside, labels[:0]]))
        (wide if many else narrow)[path].append(labels)
    counted = np.zeros(len(found.roots), dtype=np.bool_)
    for path, arrays in wide.items():
        labels = np.unique(np.concatenate(arrays))
        counted[labels] = True
        yield path, labels
    for path, arrays in narrow.items():
        labels = np.concatenate(arrays)
        alone = labels[~counted[labels]]
        if len(alone):
            yield path, np.unique(alone)


def _alive(found: Standing, asked: Zeros) -> dict[str, list[Array]]:
    """For each module the classes of which its parameters hold more than zeros, biases aside."""
    graph = found.labelling.graph
    alive: dict[str, list[Array]] = defaultdict(list)
    for value in graph.parameters:
        if _is_bias(graph, value):
            continue
        for axis, column in enumerate(found.labelling.axes[value]):
            if column is not None:
                zero = asked.get((value, axis))
                labels = found.roots[column if zero is None else column[~zero]]
                for name in graph.tensors[value]:
                    alive[_owner(name)[0]].append(labels)
    return alive


def _owner(full: str) -> tuple[str, str]:
    """The module that a parameter belongs to, and as what.

    Torch makes the weight of a parametrized layer of others: `conv.parametrizations.weight.0` is
    the weight of `conv`.
    """
    path, parametrized, made = full.partition("parametrizations.")
    if parametrized and path[-1:] in ("", "."):
        return path[:-1], made.partition(".")[0]
    path, _, name = full.rpartition(".")
    return path, name


def _is_wide(graph: Graph, value: int) -> bool:
    """Whether a parameter is long along several axes."""
    return sum(size > 1 for size in graph.metas[value].shape) > 1


def _is_bias(graph: Graph, value: int) -> bool:
    return not _is_wide(graph, value) and "bias" in _owner(graph.tensors[value][0])[1]


def _channel_axis(module: nn.Module) -> int:
    """Where the channels lie that a module puts out; a table has them in its columns."""
    return 1 if isinstance(module, nn.Embedding | nn.EmbeddingBag) else output_axis(module)


def _causes(wanted: Plan, found: Standing, labels: Array) -> Sequence[tuple[str, str]]:
    """What keeps each of these labels, and what to do about it."""
    fixed = found.labelling.labels.is_fixed(labels)
    reasons = found.labelling.labels.reasons(labels)
    return [
        (_plain(reasons[at]), _FIXED) if fixed[at] else _why(wanted, found, int(label))
        for at, label in enumerate(labels)
    ]


def _plain(reason: str) -> str:
    """The reason without the place in which it was found."""
    return reason.partition(" (")[0]


def _why(wanted: Plan, found: Standing, label: int) -> tuple[str, str]:
    if found.used[label]:
        return _USED
    if found.normed[label]:
        return _NORMED
    if found.constant[label]:
        return _CONSTANT
    return _FORWARD if wanted.removed[label] else _LAST

"""Choose what goes from a checkpoint: the worst units of all layers that are alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from torch import nn

from prune_core.errors import ConfigError
from prune_core.masking import tied_layers
from prune_core.registry import get_pruner
from prune_speedup.budget.unremovable import makers_of
from prune_speedup.engine.labels import among
from prune_speedup.engine.units import Units
from prune_speedup.pruning.coupling import Coupling
from prune_speedup.pruning.dependency_aware import DependencyAwareAllocator
from prune_speedup.torch.analysis import units

__all__ = ["Slices", "takes_experts", "worst_experts", "worst_units"]

Slices = dict[str, dict[int, list[int]]]
"""`{tensor: {axis: indices}}`, as `shrink(units=[...])` takes it."""


def takes_experts(algorithm: str) -> bool:
    """Whether a pruner ranks the experts of mixtures."""
    return getattr(get_pruner(algorithm, framework="torch"), "removes", "") == "experts"


def worst_experts(
    model: nn.Module,
    data: Iterable[Any],
    example_inputs: Any,
    *,
    algorithm: str,
    sparsity: float,
    exclude: Collection[str],
    round_to: int,
) -> dict[str, list[int]]:
    """Rank experts by what they do on data, a layer at a time.

    Args:
        model: The model.
        data: Inputs to rank them on.
        example_inputs: What the model runs on.
        algorithm: The name of a pruner of experts.
        sparsity: The share of the experts of each mixture that goes.
        exclude: The names of mixtures that keep all of theirs.
        round_to: A multiple of this many experts stays in each mixture.
    """
    pruner_class: Any = get_pruner(algorithm, framework="torch")
    rules: list[dict[str, Any]] = [{"sparsity": sparsity}]
    if exclude:
        rules.append({"exclude": True, "op_names": [*exclude]})
    pruner = pruner_class(model, rules, data=data, example_inputs=example_inputs, round_to=round_to)
    gone: dict[str, list[int]] = pruner.choose()[0]
    return gone


def worst_units(
    model: nn.Module,
    example_inputs: Any,
    *,
    algorithm: str,
    sparsity: float,
    exclude: Collection[str],
    round_to: int,
) -> list[Slices]:
    """Rank units by a criterion that looks at weights alone, a layer at a time.

    Channels that a layer normalisation runs over stay: without them it computes something else.

    Args:
        model: The model.
        example_inputs: What it runs on.
        algorithm: The name of a pruner of output channels.
        sparsity: The share of the units of each group that goes.
        exclude: The names of modules that keep all of their channels.
        round_to: A multiple of this many channels stays in each module.
    """
    found = units(model, example_inputs)
    coupling = Coupling(model, found=found)
    normed = [label for _, over in found.labelling.flow.live_norms for label in over.tolist()]
    roots = found.labelling.labels.find(np.array(normed, dtype=np.int64))
    staying = {*exclude, *makers_of(coupling, roots.tolist()), *tied_layers(model)}
    pruner_class: Any = get_pruner(algorithm, framework="torch")
    if getattr(pruner_class, "granularity", "") != "channels" or pruner_class.needs_data:
        raise ConfigError(
            f"{algorithm!r} does not rank output channels by their weights alone, which is all "
            "that is looked at of a checkpoint; take one that does, such as 'l1'."
        )
    rules: list[dict[str, Any]] = [{"sparsity": sparsity, "op_types": ["default"]}]
    rules += [{"exclude": True, "op_names": [name]} for name in sorted(staying)]
    pruner = pruner_class(model, rules)
    try:
        allocator = DependencyAwareAllocator(
            pruner, example_inputs, round_to=round_to, uniform=True, constants="zero"
        )
        chosen = allocator.choose(pruner.score())
    finally:
        pruner.unwrap()
    if not chosen:
        raise ConfigError(
            f"Nothing would be removed: with sparsity={sparsity} no group of channels that may go "
            "loses one. Ask for more, or exclude less."
        )
    return [*_telling(found, chosen)]


def _telling(found: Units, chosen: Collection[int]) -> Iterable[Slices]:
    """One axis of each group tells which of its units are meant."""
    labels = np.fromiter(chosen, dtype=np.int64)
    for group in found.groups:
        name, axis = group.axes[0]
        gone = among(found.axes[name, axis], labels) & among(found.axes[name, axis], group.labels)
        if gone.any():
            yield {name: {axis: np.flatnonzero(gone).tolist()}}

"""From scores to masks; of equal scores the first go.

Arrays here have torch's order of axes, so the results are those of prune-filter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from prune_core.amount import DEFAULT_CAP, number_to_prune
from prune_core.errors import ConfigError, PruneError
from prune_speedup.engine.ranking import smallest
from prune_tf.pruning.targets import Target

__all__ = ["across_layers", "check_scores", "keep", "layer_by_layer"]

Array = np.ndarray[Any, Any]
Ratio = Callable[[Target], float]


def check_scores(name: str, scores: Array) -> None:
    """Refuse scores that cannot be ordered."""
    if not np.isfinite(scores).all():
        kind = "NaN" if np.isnan(scores).any() else "infinite values"
        raise PruneError(
            f"The scores of {name!r} contain {kind}, so they say nothing about what to prune; "
            "look at its weights, and at the data if the algorithm uses any."
        )


def keep(scores: Array, count: int, alive: Array) -> Array:
    """Return a mask without the `count` smallest scores; what is not alive goes first."""
    ranked = np.where(alive, scores, -np.inf).ravel()
    return ~smallest(ranked, count).reshape(scores.shape) & alive


def layer_by_layer(
    targets: Sequence[Target],
    scores: Mapping[str, Array],
    alive: Mapping[str, Array],
    ratio: Ratio,
) -> dict[str, Array]:
    """Prune the smallest scores of each layer, as many as its ratio asks for."""
    masks = {}
    for target in targets:
        score = scores[target.name]
        check_scores(target.name, score)
        count = number_to_prune(ratio(target), score.size)
        masks[target.name] = keep(score, count, alive[target.name])
    return masks


def across_layers(
    targets: Sequence[Target],
    scores: Mapping[str, Array],
    alive: Mapping[str, Array],
    ratio: Ratio,
) -> dict[str, Array]:
    """Prune the smallest scores of all layers that one entry of the `config_list` selects.

    The entry's ratio is one of weights; with one score per channel, it is reached by the most
    channels whose weights do not exceed it. No layer loses more than `max_sparsity_per_layer`.
    """
    groups: dict[int, list[Target]] = defaultdict(list)
    for target in targets:
        if target.config.get("per_layer"):
            raise ConfigError(
                f"{target.name!r} has 'sparsity_per_layer', and layers are ranked together here; "
                "write 'total_sparsity', or use mode='normal'."
            )
        check_scores(target.name, scores[target.name])
        groups[target.config["entry"]].append(target)
    masks: dict[str, Array] = {}
    for group in groups.values():
        masks |= _of_group(group, scores, alive, ratio(group[0]))
    return {target.name: masks[target.name] for target in targets}


def _of_group(
    group: Sequence[Target], scores: Mapping[str, Array], alive: Mapping[str, Array], ratio: float
) -> dict[str, Array]:
    cap = group[0].config.get("max_sparsity_per_layer", DEFAULT_CAP)
    if ratio > cap:
        raise ConfigError(
            f"'total_sparsity' is {ratio}, and no layer loses more than {cap}; set "
            "'max_sparsity_per_layer' higher (at most 1) to go there."
        )
    weights = {t.name: prod(t.shape) // scores[t.name].size for t in group}
    budget = number_to_prune(ratio, sum(prod(t.shape) for t in group))
    capped: dict[str, Array] = {}
    while True:
        free = [t.name for t in group if t.name not in capped]
        spent = sum(int((~mask).sum()) * weights[name] for name, mask in capped.items())
        masks = _ranked(free, scores, alive, weights, budget - spent)
        over = {
            name: most
            for name, mask in masks.items()
            if int((~mask).sum()) > (most := number_to_prune(cap, mask.size))
        }
        if not over:
            return masks | capped
        # What these cannot give, the others must: rank again without them.
        for name, most in over.items():
            capped[name] = keep(scores[name], most, alive[name])


def _ranked(
    names: Sequence[str],
    scores: Mapping[str, Array],
    alive: Mapping[str, Array],
    weights: Mapping[str, int],
    budget: int,
) -> dict[str, Array]:
    if not names:
        return {}
    values = np.concatenate(
        [np.where(alive[n], scores[n], -np.inf).ravel().astype(np.float64) for n in names]
    )
    # What was masked before stays masked, whether or not that fits.
    mask = ~np.isneginf(values)
    if len({weights[n] for n in names}) == 1:
        mask &= ~smallest(values, budget // weights[names[0]])
    else:
        costs = np.concatenate([np.full(scores[n].size, weights[n]) for n in names])
        order = np.argsort(values, kind="stable")
        mask[order[np.cumsum(costs[order]) <= budget]] = False
    parts = np.split(mask, np.cumsum([scores[n].size for n in names])[:-1])
    return {n: part.reshape(scores[n].shape) for n, part in zip(names, parts, strict=True)}

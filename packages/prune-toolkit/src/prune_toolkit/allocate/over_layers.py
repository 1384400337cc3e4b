"""The allocators that rank the scores of several modules together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prune_core.amount import DEFAULT_CAP, number_to_prune
from prune_core.errors import ConfigError
from prune_core.masking import Masks, PrunerModuleWrapper
from prune_core.masking.recurrent import is_recurrent
from prune_toolkit.allocate.base import SparsityAllocator, check_scores
from prune_toolkit.allocate.per_layer import NormalSparsityAllocator, keep_mask
from prune_toolkit.allocate.selection import smallest

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = [
    "BlockSparsityAllocator",
    "GlobalSparsityAllocator",
    "block_of",
    "check_ranked_together",
    "weights_of",
]


class GlobalSparsityAllocator(SparsityAllocator):
    """Prunes the smallest scores of all modules that one `config_list` entry selects.

    The entry's `total_sparsity` is a ratio of weights. With one score per weight it is reached
    exactly; with one per channel, by the most channels whose weights do not exceed it. No module
    loses more than `max_sparsity_per_layer`, 0.99 unless the entry says otherwise.
    """

    def check_settings(self) -> None:
        """Refuse a ratio per layer, and a ratio that a cap on each layer makes impossible."""
        super().check_settings()
        check_ranked_together(self.pruner)

    def generate_sparsity(self, metrics: Mapping[str, Tensor]) -> Masks:
        """Return the masks, group by group."""
        groups: dict[Hashable, list[str]] = defaultdict(list)
        for name, wrapper in self.pruner.get_modules_wrapper().items():
            check_scores(name, metrics[name])
            groups[self.group_of(name, wrapper)].append(name)
        masks: Masks = {}
        for names in groups.values():
            kept = self._kept({name: metrics[name] for name in names})
            masks |= {name: self._expand_mask(name, mask) for name, mask in kept.items()}
        return {name: masks[name] for name in metrics if name in masks}

    def group_of(self, name: str, wrapper: PrunerModuleWrapper) -> Hashable:
        """Return what the modules have in common that are ranked together.

        Args:
            name: The name of the module.
            wrapper: Its wrapper.
        """
        entry: int = wrapper.config["entry"]
        return entry

    def for_each_module(self) -> SparsityAllocator:
        """Return what allocates within single modules, once it is settled what each loses."""
        return NormalSparsityAllocator(
            self.pruner,
            self.dim,
            self.block_sparse_size,
            self.continuous_mask,
            self.channels,
            self.transform,
        )

    def _kept(self, scores: dict[str, Tensor]) -> dict[str, Tensor]:
        wrappers = self.pruner.get_modules_wrapper()
        config = wrappers[next(iter(scores))].config
        cap = _cap(config)
        weights = {
            name: weights_of(wrappers[name]) // score.numel() for name, score in scores.items()
        }
        budget = number_to_prune(
            config["sparsity"], sum(weights[n] * s.numel() for n, s in scores.items())
        )
        alive = {name: self._alive(name) for name in scores}
        capped: dict[str, Tensor] = {}
        while free := {name: score for name, score in scores.items() if name not in capped}:
            spent = sum(int((~mask).sum()) * weights[name] for name, mask in capped.items())
            kept = _rank(free, max(0, budget - spent), weights, alive, self.transform)
            over = {
                name: most
                for name, mask in kept.items()
                if int((~mask).sum()) > (most := number_to_prune(cap, mask.numel()))
            }
            if not over:
                return kept | capped
            # What these cannot give, the others must: rank again without them.
            for name, most in over.items():
                capped[name] = keep_mask(scores[name], most, alive[name], self.transform)
        return capped


class BlockSparsityAllocator(GlobalSparsityAllocator):
    """Prunes the smallest scores of each block of a model, such as a layer of a transformer.

    All blocks lose equally, and within a block the modules share it by their scores. What a block
    is, is seen from the names of modules: see `block_of`.
    """

    def check_settings(self) -> None:
        """Learn which names there are."""
        with self.pruner.plain() as model:
            self._modules = dict(model.named_modules(remove_duplicate=False))
        super().check_settings()

    def group_of(self, name: str, wrapper: PrunerModuleWrapper) -> Hashable:
        """Return the entry and the block of a module.

        Args:
            name: The name of the module.
            wrapper: Its wrapper.
        """
        return wrapper.config["entry"], block_of(name, self._modules)


def block_of(name: str, modules: Mapping[str, nn.Module]) -> str:
    """Return the name of the block that a module belongs to, or its own.

    A block is a member of a list of modules, and the innermost counts: `layers.3` for
    `layers.3.attention.query`, if `layers` is a `ModuleList` or a `Sequential`.

    Args:
        name: The name of the module.
        modules: All modules of the model, by name.
    """
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        holder = modules.get(".".join(parts[: length - 1]))
        if isinstance(holder, nn.ModuleList | nn.Sequential):
            return ".".join(parts[:length])
    return name


def weights_of(wrapper: PrunerModuleWrapper) -> int:
    """Return how many weights a module has that its scores stand for.

    Args:
        wrapper: The wrapped module.
    """
    names = wrapper.masked_names if is_recurrent(wrapper.module) else (wrapper.target,)
    return sum(wrapper.parameter(name).numel() for name in names)


def check_ranked_together(pruner: Pruner) -> None:
    """Refuse rules that say what each module loses, where modules are ranked together.

    Args:
        pruner: The pruner with its rules.
    """
    for name, wrapper in pruner.get_modules_wrapper().items():
        if wrapper.config.get("per_layer"):
            raise ConfigError(
                f"{name!r} has 'sparsity_per_layer', and modules are ranked together here; "
                "write 'total_sparsity', or use mode='normal'."
            )
        _cap(wrapper.config)


def _cap(config: Mapping[str, Any]) -> float:
    """Return the most that a module may lose, which must not be less than all are to lose."""
    cap: float = config.get("max_sparsity_per_layer", DEFAULT_CAP)
    if config["sparsity"] > cap:
        raise ConfigError(
            f"'total_sparsity' is {config['sparsity']}, and no module loses more than {cap}; "
            "set 'max_sparsity_per_layer' higher (at most 1) to go there."
        )
    return cap


def _rank(
    scores: dict[str, Tensor],
    budget: int,
    weights: Mapping[str, int],
    alive: Mapping[str, Tensor | None],
    transform: Callable[[Tensor], Tensor] | None,
) -> dict[str, Tensor]:
    """Keep everything but the smallest scores whose weights fit the budget."""
    dead = {name: (~mask if (mask := alive[name]) is not None else None) for name in scores}
    spent = sum(int(d.sum()) * weights[name] for name, d in dead.items() if d is not None)
    left = max(0, budget - spent)
    if {weights[name] for name in scores} == {1}:
        chosen = smallest(
            scores, left, among={name: alive[name] for name in scores}, transform=transform
        )
    else:
        chosen = _fit(scores, left, weights, alive, transform)
    for name, mark in chosen.items():
        if (d := dead[name]) is not None:
            mark |= d
        mark.logical_not_()
    return chosen


def _fit(
    scores: dict[str, Tensor],
    budget: int,
    weights: Mapping[str, int],
    alive: Mapping[str, Tensor | None],
    transform: Callable[[Tensor], Tensor] | None,
) -> dict[str, Tensor]:
    """Choose the smallest scores, each with its number of weights, while they fit the budget.

    There is one score for many weights here, so sorting them all costs little.
    """
    flat, costs, marks = [], [], {}
    for name, score in scores.items():
        values = (score if transform is None else transform(score)).flatten().double()
        mask = alive[name]
        if mask is not None:
            values = values.masked_fill(~mask.flatten(), float("inf"))
        flat.append(values.cpu())
        costs.append(torch.full_like(flat[-1], weights[name]))
    values, cost = torch.cat(flat), torch.cat(costs)
    order = values.argsort(stable=True)
    fits = (cost[order].cumsum(0) <= budget) & values[order].isfinite()
    chosen = torch.zeros_like(values, dtype=torch.bool)
    chosen[order[fits]] = True
    parts = torch.split(chosen, [score.numel() for score in scores.values()])
    for (name, score), part in zip(scores.items(), parts, strict=True):
        marks[name] = part.reshape(score.shape).to(score.device)
    return marks

"""Budgets of torch models: of parameters, FLOPs, latency or registered costs."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.utils._pytree import tree_leaves

from prune_core import ConfigError, Pruner, shrink
from prune_core.masking import Masks
from prune_schedule.budget.propagate_masks import closed_over
from prune_schedule.run.processes import from_first
from prune_speedup.budget.target import check_target, relative_latency
from prune_speedup.budget.unremovable import makers_of, staying
from prune_speedup.engine.mask_effects import standing
from prune_speedup.engine.plan import make_plan
from prune_speedup.pruning.coupling import Coupling
from prune_speedup.search.latency_cache import LatencyCache
from prune_speedup.search.pieces import connected, makers_of_groups
from prune_speedup.search.planned import PlannedBudget
from prune_speedup.torch.cost import cost_of, flops_of
from prune_speedup.torch.masks import flat_masks, zeros_of

__all__ = ["ModelBudget", "coupled_layers"]


class ModelBudget(PlannedBudget):
    """What may be left of a torch model.

    Args:
        pruner: The pruner that masks the model.
        target: What may be left, such as `{"flops": 0.5}`.
        example_inputs: An input of the model: a tensor, a tuple or a dict.
        caps: The most that each layer may lose.
        measured: The latencies known so far, by the channels lost.
    """

    def __init__(
        self,
        pruner: Pruner,
        target: Mapping[str, float],
        example_inputs: Any,
        caps: Mapping[str, float],
        measured: LatencyCache | None = None,
    ) -> None:
        check_target(target)
        self._pruner, self._inputs = pruner, example_inputs
        with pruner.plain() as model:
            self.coupling = Coupling(model, example_inputs)
        layers = list(pruner.get_modules_wrapper())
        name = self._named()
        super().__init__(self.coupling, layers, target, caps, cost_of, name, measured)

    def flops_in(self, layer: str) -> int:
        """Return the floating-point operations of one layer of the dense model."""
        graph = self._labelling.graph
        calls = [call for call in graph.calls if call.module == layer]
        return flops_of(replace(graph, calls=calls))

    def _named(self) -> str:
        """Return a short digest of all that the speed of the model depends on."""
        with self._pruner.plain() as model:
            made = [f"{name} {type(module).__name__}" for name, module in model.named_modules()]
            made += [f"{name} {tuple(p.shape)}" for name, p in model.named_parameters()]
        made += [f"{tuple(x.shape)}" for x in tree_leaves(self._inputs) if hasattr(x, "shape")]
        text = f"{made} {cost_of(make_plan(self.coupling.units.labelling, ())).flops}"
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    def _latency(self, lost: Sequence[int]) -> float:
        units = [self.coupling.units.unit(number) for number in self._units(lost)]
        with self._pruner.plain() as model:
            small = copy.deepcopy(model)
            shrink(small, self._inputs, units=units, verify=False)
            latency = relative_latency(small, model, self._inputs)
        # Of several processes, the first one's clock counts for all.
        return float(from_first(latency))

    def check(self, masks: Masks, sparsities: Mapping[str, float]) -> None:
        """Refuse masks of which less can be removed than the plan counts on."""
        lost = self._lost(sparsities)
        promised = self.counted(self._plan(lost))
        for kind, found in self._removable(masks).items():
            if found > promised[kind] + 1e-9:
                raise ConfigError(
                    f"Of the masks that {type(self._pruner).__name__} makes, less can be removed "
                    f"than the target counts on: {found:.1%} of the {kind} would be left, and not "
                    f"{promised[kind]:.1%}, because channels of {self._staying(masks, lost)} stay. "
                    "A budget needs an algorithm that prunes whole output channels, and the same "
                    "ones in layers that belong together, such as 'l1'; and channels that a layer "
                    "normalisation runs over, or that something adds to that no pruner masks, have "
                    "to be excluded."
                )

    def shortfall(self, sparsities: Mapping[str, float]) -> str | None:
        """Say what the masks in force leave more than the target, or None if they meet it."""
        found = self._removable(self._pruner.masks)
        for kind, ratio in self.target.items():
            if found.get(kind, 0.0) > ratio + 1e-9:
                stays = self._staying(self._pruner.masks, self._lost(sparsities))
                return (
                    f"{found[kind]:.1%} of the {kind} will be left, where {ratio:.1%} was asked "
                    f"for: channels of {stays} stay"
                )
        return None

    def _removable(self, masks: Masks) -> dict[str, float]:
        """Return what is left, of what can be counted, when all goes that may."""
        with self._pruner.plain() as model:
            flat = flat_masks(model, masks | self.closing(masks))
            zeros = zeros_of(model, self._labelling.graph, flat)
            chosen = standing(self._labelling, zeros).removable
        return self.counted(make_plan(self._labelling, chosen))

    def _staying(self, masks: Masks, lost: Sequence[int]) -> str:
        """Name the layers some of whose masked channels cannot be removed."""
        with self._pruner.plain() as model:
            closed = masks | self.closing(masks)
            stays = staying(self.coupling, model, closed, self._units(lost))
        return ", ".join(map(repr, makers_of(self.coupling, stays))) or "some layers"

    def closing(self, masks: Masks) -> Masks:
        """Return masks together with those of what follows them, such as a normalisation."""
        with self._pruner.plain():
            return closed_over(self.coupling, masks)


def coupled_layers(pruner: Pruner, example_inputs: Any) -> list[list[str]]:
    """Return the layers of a pruner that can lose channels, those together that can only do so."""
    wrappers = pruner.get_modules_wrapper()
    layers = list(wrappers)
    # What scales channels, such as batch norm, makes none, and is tied to no other layer.
    scales = [[n] for n, w in wrappers.items() if w.module.get_parameter(w.target).ndim < 2]
    with pruner.plain() as model:
        made = makers_of_groups(Coupling(model, example_inputs), layers).values()
    return connected([*made, *scales], layers)
